//! Tokens, the recovery key and passphrases.

use super::{MESH, Mesh, node};
use crate::recovery::{RecoveryFault, RecoveryKey, verify};
use crate::secret::Secret;
use crate::token::{Token, TokenFault};
use cbddc_domain::build::Digest;

#[test]
fn tokens_and_their_text() {
    let root = Mesh::new().root.fingerprint();
    let token = Token::generate(MESH, node("n1"), root).unwrap();
    let text = token.reveal();
    assert_eq!(text.parse(), Ok(token.clone()));
    assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
    assert_eq!(token.secret_hash(), Digest::of(&token.secret));
    let other = Token::generate(MESH, node("n1"), root).unwrap();
    assert_ne!(other.secret, token.secret);
    let shown = format!("{token:?}");
    let secret = Digest::from_bytes(token.secret).to_string();
    assert!(text.contains(&secret));
    assert!(!shown.contains(&secret[..8]), "{shown}");
}

#[test]
fn a_typing_error_is_told_from_something_else() {
    let root = Digest::of(b"root");
    let token = Token {
        mesh: MESH.to_owned(),
        issuer: node("n1"),
        root,
        secret: [7; 32],
    };
    let text = token.reveal();
    for place in "cbddc1:".len()..text.len() {
        let mut typed = text.clone().into_bytes();
        typed[place] = if typed[place] == b'1' { b'2' } else { b'1' };
        let typed = String::from_utf8(typed).unwrap();
        assert_eq!(typed.parse::<Token>(), Err(TokenFault::Typo), "{typed}");
    }
    assert_eq!(text[..40].parse::<Token>(), Err(TokenFault::Typo));
    for other in [
        "",
        "hello",
        "cbddc2:shop",
        &format!("x{text}"),
        &"cbddc1:".repeat(100),
    ] {
        assert_eq!(
            other.parse::<Token>(),
            Err(TokenFault::NotAToken),
            "{other}"
        );
    }
    // Made up, with a right check.
    let of = |mesh, issuer| format!("cbddc1:{mesh}:{issuer}:{root}:{root}");
    for body in [
        "cbddc1:a:b",
        "cbddc1:a:b:c:d:e",
        &of("a/b", "n1"),
        &of("a", "N1"),
    ] {
        let check = Digest::of(body.as_bytes()).to_string();
        let made_up = format!("{body}:{}", &check[..8]);
        assert_eq!(
            made_up.parse::<Token>(),
            Err(TokenFault::NotAToken),
            "{body}"
        );
    }
}

#[test]
fn the_recovery_key_on_paper() {
    let key = RecoveryKey::generate().unwrap();
    let paper = key.paper();
    assert_eq!(paper.len(), 14 * 4 + 13);
    assert!(!paper.contains(['I', 'L', 'O', 'U']), "ambiguous letters");
    let forgiving = [
        paper.to_lowercase(),
        paper.replace('-', " "),
        paper.replace('-', ""),
        format!("  {}\n", paper.replace("-", " - ")),
        paper.replace('0', "O").replace('1', "l"),
    ];
    for text in forgiving {
        let read = RecoveryKey::parse(&text).unwrap();
        assert_eq!(read.public_spki(), key.public_spki());
    }
    let signature = key.sign(b"message");
    let spki = key.public_spki();
    assert!(verify(&spki, b"message", &signature));
    assert!(!verify(&spki, b"messagf", &signature));
    let mut changed = signature.clone();
    changed[10] ^= 1;
    assert!(!verify(&spki, b"message", &changed));
    let other = RecoveryKey::generate().unwrap();
    assert_ne!(other.paper(), paper);
    assert!(!verify(&other.public_spki(), b"message", &signature));
    assert!(!verify(b"nothing", b"message", &signature));
    assert_eq!(format!("{key:?}"), "RecoveryKey(hidden)");
}

#[test]
fn typing_errors_in_a_recovery_key() {
    let paper = RecoveryKey::generate().unwrap().paper();
    for place in 0..paper.len() {
        let mut typed = paper.clone().into_bytes();
        if typed[place] == b'-' {
            continue;
        }
        typed[place] = if typed[place] == b'7' { b'8' } else { b'7' };
        let typed = RecoveryKey::parse(std::str::from_utf8(&typed).unwrap());
        assert!(matches!(typed, Err(RecoveryFault::Typo)), "{place}");
    }
    let short = RecoveryKey::parse(&paper[1..]);
    assert!(matches!(short, Err(RecoveryFault::Length(55))));
    let long = RecoveryKey::parse(&format!("{paper}0000"));
    assert!(matches!(long, Err(RecoveryFault::Length(60))));
    let strange = RecoveryKey::parse(&paper.replacen(&paper[..1], "U", 1));
    assert!(matches!(strange, Err(RecoveryFault::Character('U'))));
}

#[test]
fn a_known_recovery_key() {
    // Pins the text's form: paper outlives programs. The key's bytes are 1 to 32, and the text was
    // computed by another program.
    let text = "0410-6105-0R3G-G28A-1C60-T3GF-208H-44RM-2MB1-E60S-38DH-R78Y-3WG7-A98X";
    assert_eq!(RecoveryKey::parse(text).unwrap().paper(), text);
}

#[test]
fn passphrases_do_not_show() {
    let secret = Secret::new("hunter2");
    assert_eq!(format!("{secret:?}"), "Secret(hidden)");
    assert_eq!(secret.reveal(), "hunter2");
}
