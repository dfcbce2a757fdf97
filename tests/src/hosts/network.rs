//! Speaks to hosts as a machine of their network does.

use super::{HTTP_PORT, Hosts};
use crate::mesh::http;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

/// Does something in the hosts' network. The thread that does it is of no other use: it stays there.
///
/// # Panics
/// If the network is not there, or if the work panics.
pub fn inside<T: Send>(hosts: &Hosts, work: impl FnOnce() -> T + Send) -> T {
    let enter = entrance(hosts);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter();
            work()
        });
        thread.join().expect("the work ends")
    })
}

/// Takes the thread that calls it into the hosts' network, for good.
///
/// # Panics
/// If the network is not there, or may not be joined.
pub fn entrance(hosts: &Hosts) -> impl FnOnce() + Send + use<> {
    let namespace = File::open(hosts.network_namespace()).expect("the hosts' network is there");
    move || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).expect("root may join a network");
    }
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
