//! Names and URIs.

use crate::name::{Holder, is_plain};
use cbddc_domain::access::Role;

#[test]
fn uris_of_holders_and_back() {
    let ana = |role| Holder::Person {
        name: "ana".to_owned(),
        role,
    };
    let node = Holder::Node("shop.till-3".parse().unwrap());
    let table = [
        (node, "cbddc://shop/node/shop.till-3", "node shop.till-3"),
        (ana(Role::Admin), "cbddc://shop/user/ana/admin", "ana"),
        (ana(Role::Viewer), "cbddc://shop/user/ana/viewer", "ana"),
    ];
    for (holder, uri, shown) in table {
        assert_eq!(holder.uri("shop"), uri);
        assert_eq!(Holder::parse(uri, "shop").as_ref(), Some(&holder));
        assert_eq!(holder.to_string(), shown);
        // Neither another mesh, nor one whose name begins alike.
        assert_eq!(Holder::parse(uri, "sho"), None, "{uri}");
        assert_eq!(Holder::parse(uri, "shop2"), None, "{uri}");
    }
}

#[test]
fn other_uris_name_nobody() {
    for uri in [
        "",
        "cbddc://shop",
        "cbddc://shop/",
        "cbddc://shop/node",
        "cbddc://shop/node/",
        "cbddc://shop/node/A",
        "cbddc://shop/node/n1/admin",
        "cbddc://shop/node/n1/",
        "cbddc://shop/user/ana",
        "cbddc://shop/user/ana/root",
        "cbddc://shop/user/ana/Admin",
        "cbddc://shop/user/ana/admin/",
        "cbddc://shop/user//admin",
        "cbddc://shop/user/.ana/admin",
        "cbddc://shop/user/a b/admin",
        "cbddc://shop/group/ana/admin",
        "CBDDC://shop/node/n1",
        "https://shop/node/n1",
        "cbddc://shopx/node/n1",
        " cbddc://shop/node/n1",
    ] {
        assert_eq!(Holder::parse(uri, "shop"), None, "{uri}");
    }
}

#[test]
fn plain_names() {
    for good in ["a", "ana", "Ana_B-2.x", &"a".repeat(64)] {
        assert!(is_plain(good), "{good}");
    }
    for bad in ["", ".a", "a/b", "a b", "ä", &"a".repeat(65)] {
        assert!(!is_plain(bad), "{bad}");
    }
}
