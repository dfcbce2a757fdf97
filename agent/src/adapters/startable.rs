//! Whether this host would start a program of a build: looked at while the old one still serves, not
//! found out when nothing runs any more.

use crate::adoption::Entry;
use rustix::fs::{StatVfsMountFlags, getxattr, statvfs};
use rustix::io::Errno;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The root as PID 1 sees it, which starts the node: other mounts than those of the agent's sandbox.
const ROOT_OF_INIT: &str = "/proc/1/root";

/// The most bytes of a label or an answer that are read.
const LABEL_MAX: usize = 4096;

/// Any of the three permissions to execute.
const EXECUTE: u32 = 0o111;

/// Where the kernel tells what SELinux allows (`security/selinux/selinuxfs.c`).
#[derive(Debug, Clone)]
pub struct Selinux {
    /// Its file system.
    pub folder: PathBuf,
    /// The label of who starts the node.
    pub starter: PathBuf,
    /// The extended attribute with a file's label.
    pub attribute: String,
}

impl Default for Selinux {
    fn default() -> Self {
        Self {
            folder: "/sys/fs/selinux".into(),
            starter: "/proc/1/attr/current".into(),
            attribute: "security.selinux".into(),
        }
    }
}

/// Why the entry of the build whose files lie in `tree` could not be started, in a sentence; nothing:
/// it could.
///
/// # Errors
/// When that cannot be told.
pub fn why_not_startable(
    tree: &Path,
    entry: &Entry,
    selinux: &Selinux,
) -> io::Result<Option<String>> {
    let file = tree.join(&entry.path);
    let name = entry.path.display();
    let found = match fs::metadata(&file) {
        Ok(found) if found.is_file() => found,
        Ok(_) => return Ok(Some(format!("{name}, which is to be started, is no file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(format!(
                "it has no file {name}, which is what is to be started: pack it with the same layout as \
                 the build that runs, or let an admin change the unit first"
            )));
        }
        Err(error) => return Err(error),
    };
    if !entry.is_program {
        return Ok(None);
    }
    if found.permissions().mode() & EXECUTE == 0 {
        return Ok(Some(format!(
            "{name} may not be executed: give the file its permission and pack the build again"
        )));
    }
    match why_not_mounted_for_it(tree)? {
        Some(why) => Ok(Some(why)),
        None => selinux.why_not(&file),
    }
}

/// Why no program below this folder could be started, in a sentence; nothing: it could.
///
/// # Errors
/// When the folder's file system cannot be asked.
pub fn why_not_mounted_for_it(folder: &Path) -> io::Result<Option<String>> {
    let folder = folder.canonicalize()?;
    let below = folder.strip_prefix("/").unwrap_or(&folder);
    // Only root may look there; for anybody else the two are the same.
    let of_init = statvfs(Path::new(ROOT_OF_INIT).join(below)).ok();
    let flags = of_init.map_or_else(|| statvfs(&folder), Ok)?.f_flag;
    Ok(flags.contains(StatVfsMountFlags::NOEXEC).then(|| {
        format!(
            "{} lies on a file system that is mounted `noexec`: no program there can be started. \
             Mount it with `exec`, or let `store_dir` name a folder on another one",
            folder.display()
        )
    }))
}

impl Selinux {
    /// Asks the kernel whether the starter may execute this file.
    fn why_not(&self, file: &Path) -> io::Result<Option<String>> {
        match fs::read_to_string(self.folder.join("enforce")) {
            Ok(enforce) if enforce.trim() == "1" => {}
            // Switched off, or told to complain only.
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(label) = self.label(file)? else {
            return Ok(None);
        };
        let starter = fs::read_to_string(&self.starter)?;
        let starter = starter.trim_end_matches(['\0', '\n']);
        if self.may_execute(starter, &label)? {
            return Ok(None);
        }
        let file = file.display();
        Ok(Some(format!(
            "SELinux would not let systemd ({starter}) start {file}, which is labelled {label}: label the \
             store, for example with `semanage fcontext -a -t bin_t 'FOLDER(/.*)?'` and `restorecon -R \
             FOLDER` for its `builds` and `incoming` folders, or let `store_dir` name a folder with such a \
             label"
        )))
    }

    fn label(&self, file: &Path) -> io::Result<Option<String>> {
        let mut bytes = [0; LABEL_MAX];
        match getxattr(file, self.attribute.as_str(), &mut bytes[..]) {
            Ok(count) => {
                let label = String::from_utf8_lossy(&bytes[..count]);
                Ok(Some(label.trim_end_matches('\0').to_owned()))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn may_execute(&self, starter: &str, label: &str) -> io::Result<bool> {
        let number = |path: &str| -> io::Result<u32> {
            let text = fs::read_to_string(self.folder.join(path))?;
            text.trim().parse().map_err(io::Error::other)
        };
        let class = number("class/file/index")?;
        // Permissions count from 1.
        let execute = 1_u32
            .checked_shl(number("class/file/perms/execute")?.saturating_sub(1))
            .ok_or_else(|| io::Error::other("the kernel numbers permissions oddly"))?;
        let path = self.folder.join("access");
        let mut access = OpenOptions::new().read(true).write(true).open(path)?;
        // The question must arrive in one piece.
        access.write_all(format!("{starter} {label} {class}").as_bytes())?;
        let mut answer = vec![0; LABEL_MAX];
        let count = access.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..count]);
        // Allowed, decided, two for auditing, a number, flags: hexadecimal but for the number.
        let allowed = answer.split_whitespace().next().unwrap_or_default();
        let allowed = u32::from_str_radix(allowed, 16).map_err(io::Error::other)?;
        Ok(allowed & execute != 0)
    }
}
