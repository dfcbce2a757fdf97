//! Bundles and the build store: what is packed is what arrives, and nothing else gets in.

mod bad_bundles;
mod own_files;

use cbagent::adapters::builds::{BuildError, BuildStore, Imported};
use cbddc_domain::build::{BuildId, BuildRef, Digest};
use cbddc_domain::manifest::Limits;
use cbddc_pack::{PackError, PackOptions, pack, read_bundle_header};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A temporary folder with a build's files, and a store.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) store: BuildStore,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = BuildStore::open(&folder.path().join("store"), Limits::default());
        let place = Self {
            store: store.expect("a store"),
            folder,
        };
        place.write("bin/node", b"#!/bin/sh\nexec true\n", 0o750);
        place.write("app.dll", &[7; 70_000], 0o600);
        place.write("data/deep/er/empty", b"", 0o644);
        place
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8], mode: u32) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    pub(crate) fn pack(&self, id: &str) -> Result<(BuildRef, PathBuf), PackError> {
        let out = self.folder.path().join(format!("{id}.bundle"));
        let build = pack(&self.source(), name(id), &PackOptions::default(), &out)?;
        Ok((build, out))
    }

    pub(crate) fn packed(&self, id: &str) -> (BuildRef, Vec<u8>) {
        let (build, path) = self.pack(id).expect("a bundle");
        (build, fs::read(path).expect("the bundle"))
    }

    pub(crate) fn import(&self, bytes: &[u8]) -> Result<Imported, BuildError> {
        import_into(&self.store, bytes, None)
    }
}

pub(crate) fn import_into(
    store: &BuildStore,
    bytes: &[u8],
    expected: Option<&BuildRef>,
) -> Result<Imported, BuildError> {
    let mut upload = store.begin_upload()?;
    for chunk in bytes.chunks(1000) {
        upload.write(chunk)?;
    }
    upload.finish(expected)
}

pub(crate) fn name(id: &str) -> BuildId {
    id.parse().expect("a good name")
}

/// Everything below a folder: paths with kinds, modes and what they hold.
pub(crate) fn picture(folder: &Path) -> BTreeMap<PathBuf, (u32, Digest)> {
    let mut seen = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let content = match () {
                () if metadata.is_symlink() => fs::read_link(&path)
                    .expect("a link")
                    .into_os_string()
                    .into_encoded_bytes(),
                () if metadata.is_dir() => {
                    folders.push(path.clone());
                    Vec::new()
                }
                () => fs::read(&path).expect("a file"),
            };
            seen.insert(path, (metadata.permissions().mode(), Digest::of(&content)));
        }
    }
    seen
}

/// The whole chain of an error as one text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[test]
fn a_build_arrives_as_it_was_packed() {
    let place = Place::new();
    place.write(&format!("{}/x", "long-name".repeat(20)), b"long", 0o644);
    let (build, bundle) = place.pack("app@1.0").expect("a bundle");
    assert_eq!(read_bundle_header(&bundle).expect("a header"), build);
    let bytes = fs::read(&bundle).expect("the bundle");
    let imported = import_into(&place.store, &bytes, Some(&build)).expect("an import");
    assert_eq!(
        (imported.build, imported.already_present),
        (build.clone(), false)
    );
    let tree = place.store.tree(&build);
    let mode = |file: &str| {
        fs::metadata(tree.join(file))
            .expect("a file")
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(
        (mode("bin/node"), mode("app.dll"), mode("bin"), mode("")),
        (0o555, 0o444, 0o555, 0o555)
    );
    assert_eq!(
        fs::read(tree.join("app.dll")).expect("a file"),
        vec![7; 70_000]
    );
    let (kept, size) = place.store.bundle_file(&build).expect("the kept bundle");
    assert_eq!(
        (fs::read(kept).expect("the kept bundle"), size),
        (bytes.clone(), bytes.len() as u64)
    );

    let again = place.import(&bytes).expect("a second import");
    assert!(again.already_present);
    assert_eq!(
        fs::read_dir(place.root().join("incoming"))
            .expect("a folder")
            .count(),
        0
    );
    let reopened = BuildStore::open(&place.root(), Limits::default()).expect("a store");
    assert_eq!(reopened.list().expect("a list").len(), 1);
    let found = reopened
        .find(&name("app@1.0"))
        .expect("a search")
        .expect("a build");
    assert_eq!(found.build, build);
    assert_eq!(reopened.find(&name("app@1.1")).expect("a search"), None);
    reopened.verify(&build).expect("an intact build");
}

#[test]
fn packing_depends_on_the_files_alone_and_any_tar_program_reads_it() {
    let (one, two) = (Place::new(), Place::new());
    let long = format!("{}/{}", "a".repeat(200), "b".repeat(200));
    one.write("z", b"1", 0o644);
    one.write(&long, b"2", 0o755);
    two.write(&long, b"2", 0o711);
    two.write("z", b"1", 0o600);
    let (build, bytes) = one.packed("app@1");
    assert_eq!((build, bytes.clone()), two.packed("app@1"));
    let tar = zstd::decode_all(&bytes[..]).expect("zstd");
    let mut archive = tar::Archive::new(&tar[..]);
    let names: Vec<String> = archive
        .entries()
        .expect("entries")
        .map(|entry| {
            entry
                .expect("an entry")
                .path()
                .expect("a path")
                .display()
                .to_string()
        })
        .collect();
    let expected = [
        "manifest.json",
        &format!("files/{long}"),
        "files/app.dll",
        "files/bin/node",
    ];
    assert_eq!(names[..4], expected);
    assert_eq!(names.len(), 6);
}

#[test]
fn a_source_with_more_than_files_is_refused() {
    let check = |prepare: &dyn Fn(&Place), expected: &str| {
        let place = Place::new();
        prepare(&place);
        let error = place.pack("app@1").expect_err("a refusal");
        let text = chain(&error);
        assert!(
            text.contains(expected),
            "{text:?} does not say {expected:?}"
        );
        let left: Vec<_> = fs::read_dir(place.folder.path())
            .expect("a folder")
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
    };
    check(
        &|place| symlink("/etc/passwd", place.source().join("bin/link")).expect("a link"),
        "bin/link is a symbolic link",
    );
    check(
        &|place| symlink("bin", place.source().join("folder")).expect("a link"),
        "folder is a symbolic link",
    );
    check(
        &|place| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            let kind = rustix::fs::FileType::Fifo;
            let path = place.source().join("pipe");
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).expect("a pipe");
        },
        "pipe is a named pipe",
    );
    check(
        &|place| {
            drop(std::os::unix::net::UnixListener::bind(
                place.source().join("s"),
            ))
        },
        "s is a socket",
    );
    check(
        &|place| place.write("su", b"x", 0o4755),
        "su has the set-uid bit",
    );
    check(
        &|place| place.write("sg", b"x", 0o2755),
        "sg has the set-gid bit",
    );
    check(
        &|place| place.write("a\\b", b"x", 0o644),
        "without empty, `.` or `..` parts",
    );
    check(
        &|place| {
            use std::os::unix::ffi::OsStrExt;
            let path = place.source().join(std::ffi::OsStr::from_bytes(b"\xff"));
            fs::write(path, b"").expect("a file");
        },
        "cannot be part of a build",
    );
    check(
        &|place| {
            fs::remove_dir_all(place.source())
                .and_then(|()| fs::create_dir(place.source()))
                .expect("an empty folder")
        },
        "lists no files",
    );

    let place = Place::new();
    let inside = place.source().join("out");
    let error = pack(
        &place.source(),
        name("app@1"),
        &PackOptions::default(),
        &inside,
    );
    assert!(
        matches!(error, Err(PackError::OutputInside(_))),
        "{error:?}"
    );
    assert!(!inside.exists());
    let error = read_bundle_header(&place.source().join("app.dll")).expect_err("a refusal");
    assert!(error.to_string().contains("is not a bundle"), "{error}");
}

#[test]
fn the_current_link_changes_in_one_step_and_protects_its_build() {
    let place = Place::new();
    let (one, bytes) = place.packed("app@1");
    place.import(&bytes).expect("an import");
    place.write("app.dll", b"new", 0o644);
    let (two, bytes) = place.packed("app@2");
    assert_eq!(place.store.current().expect("no link"), None);
    let error = place
        .store
        .point_current(Some(&two))
        .expect_err("a refusal");
    assert!(matches!(error, BuildError::NotFound { .. }), "{error}");
    place.import(&bytes).expect("an import");

    for build in [&one, &two, &two, &one] {
        place.store.point_current(Some(build)).expect("a link");
        assert_eq!(place.store.current().expect("a link"), Some(build.digest));
    }
    let link = fs::read_link(place.store.current_link()).expect("a link");
    assert!(link.is_relative(), "{link:?}");
    assert_eq!(
        fs::read(place.store.current_link().join("app.dll")).expect("a file"),
        [7; 70_000]
    );

    let error = place.store.remove(&one, || false).expect_err("a refusal");
    assert!(matches!(error, BuildError::InUse(_)), "{error}");
    place.store.verify(&one).expect("an intact build");
    place.store.remove(&two, || false).expect("a removal");
    assert!(matches!(
        place.store.verify(&two),
        Err(BuildError::NotFound { .. })
    ));
    place.store.point_current(None).expect("no link");
    place.store.point_current(None).expect("no link, again");
    assert_eq!(place.store.current().expect("no link"), None);
    place.store.remove(&one, || false).expect("a removal");
    assert_eq!(place.store.list().expect("a list"), []);

    symlink("/etc", place.store.current_link()).expect("a link");
    let error = place.store.point_current(None).expect_err("a refusal");
    assert!(matches!(error, BuildError::StrangeCurrent(_)), "{error}");
}

#[test]
fn damage_to_a_stored_build_is_found_named_and_repaired() {
    let place = Place::new();
    let (build, bytes) = place.packed("app@1");
    place.import(&bytes).expect("an import");
    let intact = picture(&place.root());
    let tree = place.store.tree(&build);
    let open =
        |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    let alter = |file: &str, bytes: &[u8]| {
        open(&tree);
        open(&tree.join(file));
        fs::write(tree.join(file), bytes).expect("a file");
        fs::set_permissions(tree.join(file), fs::Permissions::from_mode(0o444)).expect("a mode");
    };
    let damages: [(&dyn Fn(), &str); 6] = [
        (
            &|| alter("app.dll", &[8; 70_000]),
            "`app.dll` has other content",
        ),
        (&|| alter("app.dll", b"short"), "`app.dll` has another size"),
        (
            &|| open(&tree.join("app.dll")),
            "`app.dll` has other mode bits",
        ),
        (
            &|| {
                open(&tree);
                fs::remove_file(tree.join("app.dll")).expect("a removal");
            },
            "`app.dll` is missing",
        ),
        (
            &|| {
                open(&tree);
                fs::remove_file(tree.join("app.dll")).expect("a removal");
                symlink("bin/node", tree.join("app.dll")).expect("a link");
            },
            "`app.dll` is not a regular file",
        ),
        (
            &|| {
                open(&tree);
                open(&tree.join("bin"));
                fs::remove_dir_all(tree.join("bin")).expect("a removal");
                symlink("/bin", tree.join("bin")).expect("a link");
            },
            "`bin` is not a folder",
        ),
    ];
    for (damage, expected) in damages {
        damage();
        let error = place.store.verify(&build).expect_err("damage").to_string();
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
        place.store.repair(&build).expect("a repair");
        assert_eq!(picture(&place.root()), intact, "after {expected:?}");
        // A second import heals as well.
        damage();
        let again = place.import(&bytes).expect("an import");
        assert!(!again.already_present);
        assert_eq!(picture(&place.root()), intact, "after {expected:?}");
    }
    // The record of the files may be what is damaged.
    let record = place
        .root()
        .join(format!("builds/{}/manifest.json", build.digest));
    for damaged in [
        "{",
        "",
        &fs::read_to_string(&record)
            .expect("a record")
            .replace("node", "edon"),
    ] {
        open(&record);
        fs::write(&record, damaged).expect("a file");
        let error = place.store.verify(&build).expect_err("damage");
        assert!(
            matches!(error, BuildError::StoredManifest { .. }),
            "{error}"
        );
        assert_eq!(place.store.list().expect("a list"), []);
        place.store.repair(&build).expect("a repair");
        assert_eq!(picture(&place.root()), intact);
        open(&record);
        fs::write(&record, damaged).expect("a file");
        place.import(&bytes).expect("an import");
        assert_eq!(picture(&place.root()), intact);
    }
    let (kept, _) = place.store.bundle_file(&build).expect("the kept bundle");
    open(&kept);
    fs::write(&kept, &bytes[..bytes.len() / 2]).expect("a file");
    let before = picture(&place.root());
    let error = place.store.repair(&build).expect_err("a refusal");
    assert!(matches!(error, BuildError::Truncated), "{error}");
    assert_eq!(picture(&place.root()), before);
    assert!(place.import(&bytes).expect("an import").already_present);
    assert_eq!(picture(&place.root()), intact);
}

#[test]
fn imports_at_once_make_one_build() {
    let place = Place::new();
    let (build, bytes) = place.packed("app@1");
    place.write("app.dll", b"altered", 0o644);
    let (_, other) = place.packed("app@1");
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| place.import(&bytes).expect("an import")))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    assert_eq!(
        results
            .iter()
            .filter(|imported| !imported.already_present)
            .count(),
        1
    );
    assert_eq!(place.store.list().expect("a list").len(), 1);
    place.store.verify(&build).expect("an intact build");
    place.store.remove(&build, || false).expect("a removal");

    // Two builds that claim one name: whichever comes first keeps it.
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = [&bytes, &other]
            .map(|bytes| scope.spawn(|| place.import(bytes)))
            .into_iter()
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    assert_eq!(
        results.iter().filter(|result| result.is_ok()).count(),
        1,
        "{results:?}"
    );
    assert_eq!(place.store.list().expect("a list").len(), 1);
}
