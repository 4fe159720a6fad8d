//! Sockets to servers: the way to the server of the cache, and the connection to it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_cache_redis::{Address, Inquiry, Located, Route, Step};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tls::Tls;

/// The longest piece of an answer to an inquiry, in bytes.
const PIECE: usize = 16 * 1024;

/// Both directions of a connection.
pub(super) struct Socket {
    pub(super) read: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) write: Box<dyn AsyncWrite + Send + Unpin>,
    /// Written bytes may stay in memory until a flush.
    pub(super) is_buffered: bool,
}

/// A connection that is being made. The error is for the log.
pub(super) type Connecting = Pin<Box<dyn Future<Output = Result<Socket, String>> + Send>>;

/// Writes some bytes, or flushes if there are none. Dropped: some bytes may have been written only
/// if it returned.
pub(super) async fn push(write: &mut (dyn AsyncWrite + Send + Unpin), bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() { write.flush().await.map(|()| 0) } else { write.write(bytes).await }
}

/// Makes a connection to the server of a cache, after it has asked the servers that know it.
pub(super) fn open(route: Arc<Mutex<Route>>, tls: Option<Tls>) -> Connecting {
    Box::pin(async move {
        let tls = tls.as_ref();
        route.lock().begin();
        let mut why = None;
        loop {
            let step = route.lock().step();
            match step {
                Some(Step::Use(address)) => {
                    let patience = route.lock().patience();
                    let why = match timeout(patience, connect(&address, tls)).await {
                        Ok(Ok(socket)) => return Ok(socket),
                        Ok(Err(error)) => error.to_string(),
                        // A server without TLS may wait for the end of a command.
                        Err(_) if tls.is_some() => {
                            "it does not answer; check that the server speaks TLS on this port".to_owned()
                        }
                        Err(_) => "it does not answer".to_owned(),
                    };
                    return Err(format!("no connection to {address}: {why}"));
                }
                Some(Step::Ask(address)) => {
                    let (inquiry, patience) = {
                        let route = route.lock();
                        (route.inquiry(&address), route.patience())
                    };
                    let asked = timeout(patience, ask(&address, tls, inquiry)).await;
                    match asked.unwrap_or_else(|_| Err(format!("{address} does not answer"))) {
                        Ok(located) => route.lock().located(located),
                        Err(error) => why = Some(error),
                    }
                }
                None => return Err(why.unwrap_or_else(|| "there is no server to ask".to_owned())),
            }
        }
    })
}

async fn ask(address: &Address, tls: Option<&Tls>, mut inquiry: Inquiry) -> Result<Located, String> {
    let lost = |error: io::Error| format!("no connection to {address}: {error}");
    let mut socket = connect(address, tls).await.map_err(lost)?;
    socket.write.write_all(&std::mem::take(inquiry.outgoing())).await.map_err(lost)?;
    socket.write.flush().await.map_err(lost)?;
    let mut piece = vec![0; PIECE];
    loop {
        let bytes = socket.read.read(&mut piece).await.map_err(lost)?;
        if bytes == 0 {
            return Err(format!("{address} has closed the connection"));
        }
        let answered = inquiry.receive(&piece[..bytes]);
        if let Some(located) = answered.map_err(|error| format!("{address}: {error}"))? {
            return Ok(located);
        }
    }
}

async fn connect(address: &Address, tls: Option<&Tls>) -> io::Result<Socket> {
    match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            if let Some(tls) = tls {
                let (read, write) = tls.connect(host, stream).await?;
                return Ok(Socket { read: Box::new(read), write: Box::new(write), is_buffered: true });
            }
            let (read, write) = stream.into_split();
            Ok(Socket { read: Box::new(read), write: Box::new(write), is_buffered: false })
        }
        #[cfg(unix)]
        Address::Unix(path) => {
            let (read, write) = tokio::net::UnixStream::connect(path).await?.into_split();
            Ok(Socket { read: Box::new(read), write: Box::new(write), is_buffered: false })
        }
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "no sockets of Unix here")),
    }
}
