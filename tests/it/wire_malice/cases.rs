//! What an honest node answers, and what a fuzzer makes of it.

use super::peer::{Reply, Then};
use cbagent::adapters::cbddc_wire::compression::compress;
use cbagent::adapters::cbddc_wire::messages::{
    ChainRange, ChangeSet, Clock, Entry, HandshakeResponse, NodeStatusResponse, VectorClockEntry,
    VectorClockResponse, kind,
};
use cbagent::adapters::cbddc_wire::{WireClient, WireError, WireOptions};
use cbddc_domain::hlc::Hlc;
use std::net::SocketAddr;

/// Every question that the client has, in this order.
pub(super) async fn ask_all(address: SocketAddr, options: WireOptions) -> Result<(), WireError> {
    let mut client = WireClient::connect(address, options).await?;
    client.handshake().await?;
    client.clock().await?;
    client.vector_clock().await?;
    client.pull(&Hlc::default(), &[]).await?;
    client.chain_range("a", "b").await?;
    client.node_status(std::time::Duration::from_secs(2)).await;
    Ok(())
}

fn entries() -> Vec<Entry> {
    let entry = |number: i32| Entry {
        collection: "Orders".into(),
        key: format!("order-{number}"),
        operation: "Put".into(),
        json_data: "{\"total\":12.5}".into(),
        hlc_wall: 1_700_000_000_000 + i64::from(number),
        hlc_logic: number,
        hlc_node: "b".into(),
        hash: "a1".repeat(32),
        previous_hash: "b2".repeat(32),
    };
    (0..20).map(entry).collect()
}

/// One answer to each question.
pub(super) fn honest() -> Vec<Reply> {
    let handshake = HandshakeResponse {
        node_id: "b".into(),
        accepted: true,
        ..HandshakeResponse::default()
    };
    let clock = Clock {
        hlc_wall: 1_700_000_000_000,
        hlc_logic: 1,
        hlc_node: "b".into(),
    };
    let vector = VectorClockResponse {
        entries: vec![
            VectorClockEntry {
                node_id: "b".into(),
                hlc_wall: 1_700_000_000_000,
                hlc_logic: 1,
            };
            5
        ],
    };
    let changes = ChangeSet { entries: entries() };
    let range = ChainRange {
        entries: entries(),
        snapshot_required: false,
    };
    let status = NodeStatusResponse {
        node_id: "b".into(),
        known_peer_addresses: vec!["10.0.0.1:4001".into(); 3],
        ..NodeStatusResponse::default()
    };
    vec![
        Reply::message(kind::HANDSHAKE_RESPONSE, &handshake),
        Reply::message(kind::CLOCK, &clock),
        Reply::message(kind::VECTOR_CLOCK, &vector),
        Reply::message(kind::CHANGE_SET, &changes),
        Reply::message(kind::CHAIN_RANGE, &range),
        Reply::message(kind::NODE_STATUS, &status),
    ]
}

/// What a peer does in one case.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) secure: bool,
    pub(super) answers: Vec<Reply>,
    pub(super) then: Then,
}

/// Draws numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// The case of a number, always the same.
pub(super) fn fuzzed(number: u64) -> Case {
    let mut dice = Dice(number);
    let mut answers = honest();
    let hit = dice.below(answers.len());
    for _ in 0..=dice.below(3) {
        spoil(&mut answers[hit], &mut dice);
    }
    answers.truncate(hit + 1 + dice.below(2) * 5);
    let then = match dice.below(16) {
        0 => Then::Silent,
        1 => Then::Floods,
        _ => Then::Closes,
    };
    Case {
        secure: dice.below(2) == 0,
        answers,
        then,
    }
}

fn spoil(answer: &mut Reply, dice: &mut Dice) {
    let length = answer.payload.len();
    let at = dice.below(length);
    match dice.below(10) {
        0 | 1 if length > 0 => answer.payload[at] ^= 1 << dice.below(8),
        2 => answer.payload.truncate(at),
        3 => {
            let some: Vec<u8> = (0..dice.below(2000)).map(|_| dice.byte()).collect();
            drop(answer.payload.splice(at..at, some));
        }
        // A length of a field that goes far beyond the end.
        4 => drop(
            answer
                .payload
                .splice(at..at, [0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]),
        ),
        // Groups within groups, as deep as they go.
        5 => drop(answer.payload.splice(at..at, [0x0b; 3000])),
        6 => answer.payload = [0x0a, 0x00].repeat(dice.below(500_000)),
        7 => {
            // A bomb, or garbage that calls itself compressed.
            answer.compression = 1;
            if dice.below(2) == 0 {
                answer.payload = compress(&vec![b'x'; dice.below(8 << 20)]).expect("memory");
            }
        }
        8 => answer.kind = dice.byte(),
        _ => answer.spoiled = Some((dice.byte(), 1 << dice.below(8))),
    }
}
