//! A blocking connection (RESP 2) for the commands of a test itself, which plays another user of
//! the server. Independent of the code under test.

use std::fmt::{self, Debug, Formatter};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A server that is silent for longer does not answer.
const LIMIT: Duration = Duration::from_secs(10);
const DEEPEST: usize = 8;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A simple string or a bulk string.
    Text(Vec<u8>),
    /// A number.
    Number(i64),
    /// Nothing.
    Nil,
    /// An error, with its code.
    Error(String),
    /// Several replies.
    List(Vec<Reply>),
}

impl Reply {
    /// The reply `OK`, for comparisons.
    pub fn ok() -> Self {
        Self::Text(b"OK".to_vec())
    }

    /// The text.
    ///
    /// # Panics
    /// If the reply is no text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The replies of a list.
    ///
    /// # Panics
    /// If the reply is no list.
    pub fn list(&self) -> &[Reply] {
        match self {
            Self::List(replies) => replies,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// The value after a field, in the text of `INFO` or in a list of fields and values.
    pub fn field(&self, name: &str) -> Option<String> {
        match self {
            Self::List(replies) => replies
                .chunks_exact(2)
                .find(|pair| matches!(&pair[0], Self::Text(bytes) if bytes == name.as_bytes()))
                .map(|pair| pair[1].text()),
            other => other
                .text()
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|value| value.trim_end().to_owned()),
        }
    }
}

trait Stream: Read + Write + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A connection.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

impl Debug for Client {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A connection to an address: of a server, or of a proxy before it.
    ///
    /// # Errors
    /// If nothing accepts it.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    pub(crate) fn connect_to_socket(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// Sends a command, and waits for its reply for at most ten seconds.
    ///
    /// # Errors
    /// If the connection is closed or the server is silent.
    pub fn call(&mut self, command: &[&str]) -> io::Result<Reply> {
        self.send(command)?;
        self.receive()
    }

    /// Sends a command.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn send(&mut self, command: &[&str]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            write!(bytes, "${}\r\n{word}\r\n", word.len())?;
        }
        self.stream.get_mut().write_all(&bytes)
    }

    /// Waits for a reply for at most ten seconds.
    ///
    /// # Errors
    /// If the connection is closed or the server is silent.
    pub fn receive(&mut self) -> io::Result<Reply> {
        self.reply(0)
    }

    fn reply(&mut self, depth: usize) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| foreign(&line))?;
        Ok(match kind {
            "+" => Reply::Text(rest.as_bytes().to_vec()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(rest.parse().map_err(|_| foreign(&line))?),
            "$" | "*" if rest == "-1" => Reply::Nil,
            "$" => {
                let length: usize = rest.parse().map_err(|_| foreign(&line))?;
                let mut bytes = Vec::new();
                self.stream.by_ref().take(length as u64).read_to_end(&mut bytes)?;
                if bytes.len() < length || !self.line()?.is_empty() {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Reply::Text(bytes)
            }
            "*" if depth < DEEPEST => {
                let length: usize = rest.parse().map_err(|_| foreign(&line))?;
                Reply::List((0..length).map(|_| self.reply(depth + 1)).collect::<io::Result<_>>()?)
            }
            _ => return Err(foreign(&line)),
        })
    }

    /// The next line, without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(text) => Ok(text.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn foreign(line: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not a reply: {line:?}"))
}
