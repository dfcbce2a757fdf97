//! Bad input: every bundle that is not exactly what its manifest says is refused, and the store is
//! as it was.

use super::{Place, chain, import_into, name, picture};
use cbagent::adapters::builds::{BuildError, BuildStore};
use cbddc_domain::build::Digest;
use cbddc_domain::bundle::{self, END_MARK};
use cbddc_domain::manifest::{Limits, Manifest, ManifestFile};

fn file(path: &str, content: &[u8]) -> ManifestFile {
    let (size, digest) = (content.len() as u64, Digest::of(content));
    ManifestFile {
        path: path.parse().expect("a good path"),
        size,
        executable: false,
        digest,
    }
}

fn manifest(files: &[ManifestFile]) -> Manifest {
    Manifest::new(name("app@1"), files.to_vec(), false, &Limits::default()).expect("a manifest")
}

fn entry(header: &[u8], content: &[u8]) -> Vec<u8> {
    let padding = &END_MARK[..bundle::padding(content.len() as u64)];
    [header, content, padding].concat()
}

/// A bundle with a manifest and whatever follows it.
fn bundle_of(manifest: &[u8], rest: &[u8]) -> Vec<u8> {
    let front = entry(&bundle::manifest_header(manifest.len() as u64), manifest);
    zstd::encode_all(&[&front, rest].concat()[..], 3).expect("zstd")
}

/// A header made by the `tar` crate, with whatever an attacker may set.
fn header(path: &[u8], kind: tar::EntryType, mode: u32, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.as_old_mut().linkname[..11].copy_from_slice(b"/etc/passwd");
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// The same numbers for the same seed (xorshift).
fn random(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut next = random(7);
    (0..length).map(|_| next() as u8).collect()
}

/// Expects the bundle to be refused with `expected` in the message, and nothing to change.
fn refused(place: &Place, bundle: &[u8], expected: &str) {
    let before = picture(&place.root());
    let error = place.import(bundle).expect_err(expected);
    let text = chain(&error);
    assert!(
        text.contains(expected),
        "{text:?} does not say {expected:?}"
    );
    assert_eq!(
        picture(&place.root()),
        before,
        "the store changed: {expected}"
    );
}

#[test]
fn a_bundle_cut_off_anywhere_is_refused() {
    let place = Place::new();
    let (_, bytes) = place.packed("app@1");
    let cuts = (0..bytes.len())
        .step_by(7)
        .chain(bytes.len() - 20..bytes.len());
    for cut in cuts {
        refused(&place, &bytes[..cut], "the bundle is cut off");
    }
    place.import(&bytes).expect("the whole bundle");
}

#[test]
fn a_bundle_altered_anywhere_never_gives_another_build() {
    let place = Place::new();
    // Content that does not compress, so that most bytes of the bundle are content.
    let mut next = random(0x2545_f491_4f6c_dd1d);
    place.write("noise", &noise(20_000), 0o644);
    let (build, bytes) = place.packed("app@1");
    let before = picture(&place.root());
    let (mut refusals, mut tries) = (0, 0);
    let mut every_front_byte = 0..64;
    while tries < 300 {
        tries += 1;
        let at = every_front_byte
            .next()
            .unwrap_or_else(|| next() as usize % bytes.len());
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (next() % 8);
        match import_into(&place.store, &altered, Some(&build)) {
            Err(_) => refusals += 1,
            // A few bits of the compression's own frame do not matter; then every file is right.
            Ok(_) => {
                place.store.verify(&build).expect("an intact build");
                place.store.remove(&build, || false).expect("a removal");
            }
        }
        assert_eq!(picture(&place.root()), before, "byte {at}");
    }
    assert!(
        refusals >= tries - 5,
        "only {refusals} of {tries} were refused"
    );
}

#[test]
fn another_build_than_expected_is_refused() {
    let place = Place::new();
    let (one, _) = place.packed("app@1");
    place.write("app.dll", b"altered", 0o644);
    let (other, bytes) = place.packed("app@1");
    let before = picture(&place.root());
    let error = import_into(&place.store, &bytes, Some(&one))
        .expect_err("a refusal")
        .to_string();
    assert!(error.contains(&one.digest.to_string()), "{error}");
    assert!(error.contains(&other.digest.to_string()), "{error}");
    assert_eq!(picture(&place.root()), before);
}

#[test]
fn a_version_never_changes() {
    let place = Place::new();
    let (_, bytes) = place.packed("app@1");
    place.import(&bytes).expect("an import");
    place.write("app.dll", b"altered", 0o644);
    let (_, bytes) = place.packed("app@1");
    refused(&place, &bytes, "app@1 is already here with digest");
}

#[test]
fn entries_that_the_manifest_does_not_list_are_refused() {
    use tar::EntryType as Kind;
    let place = Place::new();
    let list = manifest(&[file("bin/a", b"hello")]).canonical_bytes();
    let cases: [(&[u8], Kind, u32, u64, &str); 17] = [
        (b"files/bin/a", Kind::Symlink, 0o644, 0, "is a link"),
        (b"files/bin/a", Kind::Link, 0o644, 0, "is a link"),
        (b"files/bin/a", Kind::Char, 0o644, 0, "is a device"),
        (b"files/bin/a", Kind::Block, 0o644, 0, "is a device"),
        (b"files/bin/a", Kind::Fifo, 0o644, 0, "is a named pipe"),
        (
            b"files/bin/",
            Kind::Directory,
            0o755,
            0,
            "is a folder entry",
        ),
        (b"././@LongLink", Kind::GNULongName, 0o644, 5, "a long name"),
        (
            b"././@PaxHeader",
            Kind::XHeader,
            0o644,
            5,
            "a kind that bundles do not have",
        ),
        (
            b"files/bin/a",
            Kind::GNUSparse,
            0o644,
            5,
            "a kind that bundles do not have",
        ),
        (
            b"files/bin/a",
            Kind::Regular,
            0o4755,
            5,
            "has set-uid, set-gid or sticky bits",
        ),
        (
            b"files/bin/a",
            Kind::Regular,
            0o2644,
            5,
            "has set-uid, set-gid or sticky bits",
        ),
        (
            b"/etc/cron.d/a",
            Kind::Regular,
            0o644,
            5,
            "is an absolute path",
        ),
        (
            b"files/../../a",
            Kind::Regular,
            0o644,
            5,
            "leaves the folder of the build",
        ),
        (
            b"files/bin/b",
            Kind::Regular,
            0o644,
            5,
            "is not listed here",
        ),
        (
            b"files/bin/a",
            Kind::Regular,
            0o644,
            5000,
            "is larger than the manifest says",
        ),
        (
            b"files/bin/a",
            Kind::Regular,
            0o644,
            4,
            "is smaller than the manifest says",
        ),
        (
            b"files/bin/a",
            Kind::Regular,
            0o755,
            5,
            "has a header that differs",
        ),
    ];
    for (path, kind, mode, size, expected) in cases {
        let rest = entry(&header(path, kind, mode, size), b"hello");
        refused(
            &place,
            &bundle_of(&list, &[&rest, &END_MARK[..]].concat()),
            expected,
        );
    }
}

#[test]
fn manifests_that_break_the_rules_are_refused() {
    let place = Place::new();
    let good = String::from_utf8(manifest(&[file("bin/a", b"hello")]).canonical_bytes());
    let good = good.expect("UTF-8");
    let cases = [
        (good.replace("bin/a", "../a"), "path `../a` is not valid"),
        (
            good.replace("bin/a", "/etc/a"),
            "path `/etc/a` is not valid",
        ),
        (
            good.replace("bin/a", "bin//a"),
            "path `bin//a` is not valid",
        ),
        (good.replace("bin/a", "bin\\\\a"), "is not valid"),
        (good.replace("bin/a", "bin\\u0000a"), "is not valid"),
        (
            good.replace("app@1", "app@../1"),
            "build `app@../1` is not valid",
        ),
        (
            good.replace("\"total_size\":5", "\"total_size\":6"),
            "add up to 5 bytes",
        ),
        (
            good.replace("\"format\":1", "\"format\":2"),
            "format 2 is not known",
        ),
        (
            good.replace(",\"build\"", ", \"build\""),
            "not in canonical form",
        ),
        (
            good.replace("\"format\":1", "\"format\":1,\"more\":1"),
            "unknown field `more`",
        ),
        (
            good.replace("\"size\":5", "\"size\":99999999999"),
            "more than the limit",
        ),
        ("[".repeat(100_000), "manifest cannot be read"),
    ];
    for (text, expected) in cases {
        let rest = entry(&bundle::file_header(&file("bin/a", b"hello")), b"hello");
        let bundle = bundle_of(text.as_bytes(), &[&rest, &END_MARK[..]].concat());
        refused(&place, &bundle, expected);
    }
    refused(&place, b"not a bundle at all", "damaged or not a bundle");
    let other_tar = entry(&header(b"x", tar::EntryType::Regular, 0o644, 1), b"x");
    let bundle = zstd::encode_all(&other_tar[..], 3).expect("zstd");
    refused(&place, &bundle, "does not begin with a manifest");
}

#[test]
fn content_must_match_and_nothing_may_be_missing_or_left_over() {
    let place = Place::new();
    let (a, b) = (file("a", b"hello"), file("b", b"world"));
    let list = manifest(&[a.clone(), b.clone()]).canonical_bytes();
    let (in_a, in_b) = (bundle::file_header(&a), bundle::file_header(&b));
    let (hello, world) = (entry(&in_a, b"hello"), entry(&in_b, b"world"));
    let check =
        |parts: &[&[u8]], expected| refused(&place, &bundle_of(&list, &parts.concat()), expected);
    check(
        &[&hello, &entry(&in_b, b"w0rld"), &END_MARK],
        "content of `b` does not match",
    );
    check(
        &[&hello, &END_MARK],
        "ends too early, where the manifest has the file `b`",
    );
    check(&[&hello], "is cut off");
    check(&[&world, &hello, &END_MARK], "`files/b` is not listed here");
    check(
        &[&hello, &hello, &world, &END_MARK],
        "`files/a` is not listed here",
    );
    check(
        &[&hello, &world, &world, &END_MARK],
        "an entry `files/b` after the last file",
    );
    check(
        &[&hello, &world, &END_MARK, b"x"],
        "there is data after the last file",
    );
    let mut padded = hello.clone();
    padded[600] = 1;
    check(&[&padded, &world, &END_MARK], "data between two files");
    let whole = bundle_of(&list, &[&hello, &world, &END_MARK[..]].concat());
    refused(
        &place,
        &[&whole[..], b"more"].concat(),
        "uncompressed data after the last file",
    );
    refused(
        &place,
        &[&whole[..], &whole[..]].concat(),
        "uncompressed data after the last file",
    );
    place.import(&whole).expect("the bundle without faults");
}

#[test]
fn a_bundle_that_unpacks_to_more_than_it_declares_stops_at_once() {
    let place = Place::new();
    // 1 GiB of zeros is 33 kB compressed; none of it may reach the disk or the memory.
    let declared = file("a", b"hello");
    let list = manifest(std::slice::from_ref(&declared)).canonical_bytes();
    let head = entry(&bundle::manifest_header(list.len() as u64), &list);
    let mut bomb = zstd::Encoder::new(Vec::new(), 3).expect("zstd");
    let mut pour = |header: &[u8]| {
        std::io::Write::write_all(&mut bomb, header).expect("zstd");
        let zeros = vec![0; 1 << 20];
        (0..1024).for_each(|_| std::io::Write::write_all(&mut bomb, &zeros).expect("zstd"));
    };
    pour(
        &[
            &head[..],
            &header(b"files/a", tar::EntryType::Regular, 0o644, 1 << 30),
        ]
        .concat(),
    );
    let bomb = bomb.finish().expect("zstd");
    assert!(bomb.len() < 200_000);
    refused(&place, &bomb, "is larger than the manifest says");

    let limits = Limits {
        unpacked_bytes: 1000,
        bundle_bytes: 2000,
        manifest_bytes: 300,
        files: 2,
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = BuildStore::open(folder.path(), limits).expect("a store");
    let before = picture(folder.path());
    let check = |bundle: &[u8], expected: &str| {
        let text = chain(&import_into(&store, bundle, None).expect_err("a refusal"));
        assert!(
            text.contains(expected),
            "{text:?} does not say {expected:?}"
        );
        assert_eq!(picture(folder.path()), before);
    };
    check(&bomb, "larger than the limit of 2000 bytes");
    let large = manifest(&[file("a", &[0; 1001])]).canonical_bytes();
    check(
        &bundle_of(&large, b""),
        "unpack to more than the limit of 1000 bytes",
    );
    let long = manifest(&[file(&"a".repeat(200), b"")]).canonical_bytes();
    check(&bundle_of(&long, b""), "more than the limit of 300");
    let wide = zstd::stream::encode_all(&head[..], 22).expect("zstd");
    check(&wide, "is cut off");
}

#[test]
fn an_upload_that_is_dropped_leaves_nothing() {
    let place = Place::new();
    let (build, bytes) = place.packed("app@1");
    let before = picture(&place.root());
    let mut upload = place.store.begin_upload().expect("an upload");
    upload.write(&bytes[..bytes.len() / 2]).expect("bytes");
    assert_ne!(picture(&place.root()), before);
    drop(upload);
    assert_eq!(picture(&place.root()), before);

    // As after a crash: no destructor ran.
    let mut upload = place.store.begin_upload().expect("an upload");
    upload.write(&bytes).expect("bytes");
    std::mem::forget(upload);
    let store = BuildStore::open(&place.root(), Limits::default()).expect("a store");
    assert_eq!(picture(&place.root()), before);
    assert_eq!(store.get(&build.digest).expect("a search"), None);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let place = Place::new();
    let noise = noise(3_000_000);
    place.write("noise", &noise, 0o644);
    let (build, bytes) = place.packed("app@1");
    let Some(disk) = cbddc_tests::SmallDisk::mount(4 << 20) else {
        return;
    };
    let store = BuildStore::open(disk.path(), Limits::default()).expect("a store");
    let before = picture(disk.path());
    let full = |store: &BuildStore| match import_into(store, &bytes, Some(&build)) {
        Err(BuildError::NoSpace { free, needed, .. }) => (free, needed),
        other => panic!("not a full disk: {other:?}"),
    };
    // Either the bundle fits and its files do not, or (below) not even the bundle does.
    let (free, needed) = full(&store);
    assert!(free < needed, "{free} free, {needed} needed");
    assert_eq!(picture(disk.path()), before);
    std::fs::write(disk.path().join("ballast"), vec![1; 3 << 20]).expect("ballast");
    let before = picture(disk.path());
    full(&store);
    assert_eq!(picture(disk.path()), before);
    std::fs::remove_file(disk.path().join("ballast")).expect("a removal");
    place.write("noise", &noise[..1000], 0o644);
    let (_, bytes) = place.packed("app@2");
    import_into(&store, &bytes, None).expect("a build that fits");
}
