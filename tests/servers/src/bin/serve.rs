//! Starts a server of each kind, writes their names and addresses, and runs until its input ends:
//! `cargo run -p test-servers`.

use std::io;

use servers::{Server, all};

#[allow(clippy::print_stdout)] // the purpose of the program
fn main() -> io::Result<()> {
    let servers: Vec<Server> = all().iter().map(servers::Program::start).collect();
    for server in &servers {
        println!("{:?} {}", server.program().kind(), server.port());
    }
    println!("end the input to stop them");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
