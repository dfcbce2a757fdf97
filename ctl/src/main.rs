//! `cbctl`, the client of a CBDDC mesh. Everything is in the library.

fn main() -> std::process::ExitCode {
    cbctl::run(std::env::args_os())
}
