//! A small CBDDC node for tests and demonstrations. It is no part of the product.

use anyhow::{Context as _, Result};
use cbddc_tests::fixture::ask::{WORDS, ask};
use cbddc_tests::fixture::run::run;
use cbddc_tests::fixture::settings::{Arguments, Settings};
use clap::Parser;
use std::io::Write as _;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, address] = words.as_slice()
        && WORDS.contains(&word.as_str())
    {
        let said = ask(word, address.parse().context("where is the node?")?)?;
        // Whoever runs it may not read.
        let _ = writeln!(std::io::stdout(), "{said}");
        return Ok(());
    }
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let settings = Settings::load(Arguments::parse(), &environment)?;
    // One thread is enough for a fixture, and starts fastest.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(settings))
}
