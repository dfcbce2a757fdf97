//! What the wire client does with peers that lie, dawdle or speak something else.

use crate::fixture::{TOKEN, node, options};
use anyhow::Result;
use cbagent::adapters::cbddc_wire::channel::ChannelError;
use cbagent::adapters::cbddc_wire::compression::CompressionError;
use cbagent::adapters::cbddc_wire::frame::FrameError;
use cbagent::adapters::cbddc_wire::link::LinkError;
use cbagent::adapters::cbddc_wire::{Security, WireClient, WireError, WireOptions};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Far above every limit that is set here, far below what an unlimited wait would take.
const IN_TIME: Duration = Duration::from_secs(10);

fn quick(security: Security) -> WireOptions {
    WireOptions {
        read_timeout: Duration::from_millis(300),
        bulk_timeout: Duration::from_millis(300),
        detect_timeout: Duration::from_millis(200),
        payload_limit: 1 << 20,
        ..options(security, TOKEN)
    }
}

/// A peer that sends these bytes to everyone and then keeps the connection open.
async fn peer_that_says(bytes: Vec<u8>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(&bytes).await;
            open.push(stream);
        }
    });
    Ok(address)
}

async fn refusal(address: SocketAddr, options: WireOptions) -> WireError {
    let started = Instant::now();
    let error = match WireClient::connect(address, options).await {
        Err(error) => error,
        Ok(mut client) => client.handshake().await.expect_err("the peer was believed"),
    };
    assert!(
        started.elapsed() < IN_TIME,
        "it took {:?}",
        started.elapsed()
    );
    assert!(
        !format!("{error:?}{error}").contains(TOKEN),
        "the token is in the error"
    );
    error
}

#[tokio::test]
async fn silence_ends_in_a_timeout() -> Result<()> {
    let silent = peer_that_says(vec![]).await?;
    let plain = refusal(silent, quick(Security::Plaintext)).await;
    assert!(
        matches!(
            plain,
            WireError::Timeout {
                step: "handshake",
                ..
            }
        ),
        "{plain:?}"
    );
    let secure = refusal(silent, quick(Security::Secure)).await;
    assert!(
        matches!(
            secure,
            WireError::Timeout {
                step: "secure hello",
                ..
            }
        ),
        "{secure:?}"
    );
    let auto = refusal(silent, quick(Security::Auto)).await;
    assert!(
        matches!(
            auto,
            WireError::Timeout {
                step: "handshake",
                ..
            }
        ),
        "{auto:?}"
    );
    Ok(())
}

#[tokio::test]
async fn immense_and_negative_lengths_are_refused_before_they_cost_anything() -> Result<()> {
    for (length, named) in [(i32::MAX, true), (i32::MIN, false), (1 << 21, true)] {
        let header = [length.to_le_bytes().as_slice(), &[2, 0]].concat();
        let address = peer_that_says(header).await?;
        let plain = refusal(address, quick(Security::Plaintext)).await;
        let WireError::Exchange {
            source: LinkError::Frame(frame),
            ..
        } = plain
        else {
            panic!("{plain:?}");
        };
        assert_eq!(
            matches!(frame, FrameError::TooLong { .. }),
            named,
            "{frame:?}"
        );
        assert_eq!(
            matches!(frame, FrameError::NegativeLength(_)),
            !named,
            "{frame:?}"
        );
        let secure = refusal(address, quick(Security::Auto)).await;
        assert!(
            matches!(secure, WireError::Channel(ChannelError::HelloLength(l)) if l == length),
            "{secure:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn garbage_is_refused_by_name() -> Result<()> {
    let http = peer_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await?;
    let refused = refusal(http, quick(Security::Auto)).await;
    assert!(
        matches!(refused, WireError::Channel(ChannelError::HelloLength(_))),
        "{refused:?}"
    );
    let no_key = [91_i32.to_le_bytes().as_slice(), &[7; 91]].concat();
    let refused = refusal(peer_that_says(no_key).await?, quick(Security::Auto)).await;
    assert!(
        matches!(refused, WireError::Channel(ChannelError::HelloKey)),
        "{refused:?}"
    );

    let said = |bytes: &[u8]| peer_that_says(bytes.to_vec());
    let undecodable = refusal(
        said(&[2, 0, 0, 0, 2, 0, 0xff, 0xff]).await?,
        quick(Security::Plaintext),
    )
    .await;
    assert!(
        matches!(
            undecodable,
            WireError::Exchange {
                source: LinkError::Decode { .. },
                ..
            }
        ),
        "{undecodable:?}"
    );
    let other = refusal(said(&[0, 0, 0, 0, 6, 0]).await?, quick(Security::Plaintext)).await;
    assert!(
        matches!(
            other,
            WireError::UnexpectedType {
                expected: 2,
                got: 6,
                ..
            }
        ),
        "{other:?}"
    );
    let packed = refusal(said(&[0, 0, 0, 0, 2, 9]).await?, quick(Security::Plaintext)).await;
    let unknown = |e: &LinkError| matches!(e, LinkError::UnknownCompression(9));
    assert!(
        matches!(&packed, WireError::Exchange { source, .. } if unknown(source)),
        "{packed:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_compressed_bomb_is_not_unpacked() -> Result<()> {
    let bomb = cbagent::adapters::cbddc_wire::compression::compress(&vec![0; 32 << 20])?;
    let length = i32::try_from(bomb.len())?.to_le_bytes();
    let address = peer_that_says([length.as_slice(), &[2, 1], &bomb].concat()).await?;
    let refused = refusal(address, quick(Security::Plaintext)).await;
    let WireError::Exchange {
        source: LinkError::Compression(e),
        ..
    } = refused
    else {
        panic!("{refused:?}");
    };
    assert!(
        matches!(e, CompressionError::TooLong { limit: 1_048_576 }),
        "{e:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_is_named() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Read the request first: closing with unread bytes would reset the connection.
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&[9, 0, 0, 0, 2, 0, 1]).await;
        }
    });
    let cut = refusal(address, quick(Security::Plaintext)).await;
    let truncated = |e: &LinkError| matches!(e, LinkError::Frame(FrameError::Truncated));
    assert!(
        matches!(&cut, WireError::Exchange { source, .. } if truncated(source)),
        "{cut:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_node_survives_what_a_client_may_send() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = node("a", folder.path()).start().await?;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0xff, 0xff, 0xff, 0x7f, 1, 0],
        &[],
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(node.tcp).await?;
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        // Whatever comes back, the connection ends, by a reset perhaps.
        let _ = tokio::time::timeout(IN_TIME, stream.read_to_end(&mut Vec::new())).await?;
    }
    let mut client = WireClient::connect(node.tcp, options(Security::Secure, TOKEN)).await?;
    assert!(client.handshake().await?.accepted);
    Ok(())
}
