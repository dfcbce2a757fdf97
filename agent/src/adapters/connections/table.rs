//! The kernel's table of TCP connections, `/proc/PID/net/tcp` and `tcp6` (`man 5 proc_pid_net`), as
//! text: nothing is read here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a socket does. The kernel knows more states; none of them is of use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Both ends hold the connection (`01`).
    Established,
    /// It waits for connections (`0A`).
    Listens,
}

/// One socket of the table. Addresses are as plain as they can be: `::ffff:10.0.0.1` is `10.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// This end.
    pub local: SocketAddr,
    /// The other end; zeros where it listens.
    pub remote: SocketAddr,
    /// What it does.
    pub state: State,
    /// The number of the socket, which the links in `/proc/PID/fd` name.
    pub inode: u64,
}

/// The rows of one table that are established or listen. What cannot be read is left out: the kernel
/// writes the header and the rows, and a table that was cut ends in the middle of one.
pub fn rows(text: &str) -> Vec<Row> {
    text.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace();
    let number = words.next()?.strip_suffix(':')?;
    let _: u64 = number.parse().ok()?;
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    let state = match words.next()? {
        "01" => State::Established,
        "0A" => State::Listens,
        _ => return None,
    };
    // Queues, timer, retransmits, user, timeout; then the inode.
    let inode = words.nth(5)?.parse().ok()?;
    Some(Row {
        local,
        remote,
        state,
        inode,
    })
}

/// `0100007F:0FA1`: 32 bits each as the host holds them in memory, and the port as a number.
fn address(word: &str) -> Option<SocketAddr> {
    let (address, port) = word.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let part = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        let number = u32::from_str_radix(digits, 16).ok()?;
        Some(number.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(part(0)?)),
        32 => {
            let parts = [part(0)?, part(1)?, part(2)?, part(3)?].concat();
            let bytes: [u8; 16] = parts.try_into().ok()?;
            plain(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The IPv4 address inside an IPv6 one, where there is one.
pub fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::{Row, State, rows};

    /// Captured from a host with little-endian numbers; on another the bytes stand the other way round.
    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0FA1 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 21001 1 0000000069a262aa 100 0 0 10 0
   1: 0100007F:0FA1 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1000        0 21002 1 0000000069a262ab 20 4 30 10 -1
   2: 0100007F:D2F0 0100007F:0FA1 01 00000000:00000000 02:000A8C2F 00000000     0        0 21003 2 0000000069a262ac 20 4 30 10 -1
   3: 0100007F:D2F2 0100007F:0FA1 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000069a262ad
   4: 0100007F:D2F4 0100007F:0F";

    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0FA1 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 31001 1 0000000069a262aa 100 0 0 10 0
   1: 0000000000000000FFFF00000600000A:0FA1 0000000000000000FFFF00000700000A:8A4C 01 00000000:00000000 00:00000000 00000000   998        0 31002 1 0000000069a262ab 20 4 30 10 -1";

    fn words(row: &Row) -> String {
        format!("{} {} {:?} {}", row.local, row.remote, row.state, row.inode)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn captured_tables_are_read_and_mapped_addresses_are_plain() {
        let read: Vec<String> = rows(TCP).iter().map(words).collect();
        assert_eq!(
            read,
            [
                "127.0.0.1:4001 0.0.0.0:0 Listens 21001",
                "127.0.0.1:4001 127.0.0.1:54000 Established 21002",
                "127.0.0.1:54000 127.0.0.1:4001 Established 21003",
            ]
        );
        let read: Vec<String> = rows(TCP6).iter().map(words).collect();
        assert_eq!(
            read,
            [
                "[::]:4001 [::]:0 Listens 31001",
                "10.0.0.6:4001 10.0.0.7:35404 Established 31002",
            ]
        );
    }

    #[test]
    fn what_is_no_row_is_left_out() {
        for text in [
            "",
            "\n\n",
            "0: 0100007F:0FA1",
            "x: 0100007F:0FA1 0100007F:D2F0 01 0 0 0 1000 0 21002",
            "0: 01000é7F:0FA1 0100007F:D2F0 01 0 0 0 1000 0 21002",
            "0: 0100007F:0FA1 0100007F:D2F0 01 0 0 0 1000 0 -1",
        ] {
            assert_eq!(rows(text), [], "{text:?}");
        }
        assert_eq!(rows(TCP)[0].state, State::Listens);
    }
}
