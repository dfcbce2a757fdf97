//! Who asks at the socket of this host's agent: the user that the kernel tells the agent of.

use std::fs;

/// The name of the user that this process runs as, in the words of the agent's journal.
pub(super) fn user() -> String {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    named(rustix::process::geteuid().as_raw(), &accounts)
}

fn named(uid: u32, accounts: &str) -> String {
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn the_user_is_who_the_kernel_says() {
        let accounts =
            "root:x:0:0::/:/bin/sh\nbad line\n:x:7:7\nana:x:1001:100:Ana:/srv/ana:/bin/sh\n";
        assert_eq!(named(0, accounts), "root");
        assert_eq!(named(1001, accounts), "ana");
        assert_eq!(named(7, accounts), "uid 7");
        assert_eq!(named(4711, accounts), "uid 4711");
        assert_eq!(named(0, ""), "uid 0");
    }
}
