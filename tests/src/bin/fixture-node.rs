//! A small CBDDC node for tests and demonstrations. It is no part of the product.

use anyhow::Result;
use cbddc_tests::fixture::run::run;
use cbddc_tests::fixture::settings::{Arguments, Settings};
use clap::Parser;

fn main() -> Result<()> {
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
