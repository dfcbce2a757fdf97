//! Speaks to hosts as a machine of their network does.

use super::{HTTP_PORT, Hosts};
use crate::mesh::http;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

/// The hosts' network.
///
/// # Panics
/// If it is not there.
pub fn open(hosts: &Hosts) -> File {
    File::open(hosts.network_namespace()).expect("the hosts' network is there")
}

/// Moves this thread into a network. It is of no other use then: it stays there.
///
/// # Panics
/// If this process may not.
pub fn join(network: &File) {
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(network.as_fd(), kind).expect("root may join a network");
}

/// Does something in the hosts' network.
///
/// # Panics
/// If the network is not there, or if the work panics.
pub fn inside<T: Send>(hosts: &Hosts, work: impl FnOnce() -> T + Send) -> T {
    let network = open(hosts);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            join(&network);
            work()
        });
        thread.join().expect("the work ends")
    })
}

/// One HTTP request to a host's node: status and body.
///
/// # Errors
/// When the node is not there, does not answer in time, or answers with something else than HTTP.
pub fn request(
    hosts: &Hosts,
    host: u8,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<(u16, String)> {
    let address = SocketAddr::from((hosts.address(host), HTTP_PORT));
    inside(hosts, || http::request_at(address, method, path, body))
}
