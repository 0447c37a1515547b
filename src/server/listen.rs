//! Sockets that listen: TCP addresses and the Unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Settings;
use crate::server::Fatal;
use crate::session::{Address, Client};
use crate::worker::runner::Accepted;

/// All listening sockets.
pub struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Option<(UnixListener, Arc<PathBuf>)>,
    port: u16,
}

enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// A connection that nobody serves yet.
pub struct NewConnection {
    stream: Stream,
    local_address: Address,
}

impl Listeners {
    /// Opens what the settings name. Port 0 takes a free one, the same for all addresses.
    ///
    /// # Errors
    /// An address that is taken or not ours, with what to do.
    pub fn open(settings: &Settings) -> Result<Listeners, Fatal> {
        let mut listeners = Listeners {
            tcp: Vec::new(),
            unix: None,
            port: settings.port,
        };
        for address in settings.bind_addresses() {
            let at = SocketAddr::new(address.ip, listeners.port);
            match listen(at, settings.tcp_backlog) {
                Ok(listener) => {
                    if let Ok(bound) = listener.local_addr() {
                        listeners.port = bound.port();
                    }
                    listeners.tcp.push(listener);
                }
                Err(_) if address.optional => {}
                Err(error) => {
                    let hint = match error.kind() {
                        io::ErrorKind::AddrInUse => "; another server listens there, choose --port",
                        _ => "",
                    };
                    return Err(Fatal::new(format!("cannot listen on {at}: {error}{hint}")));
                }
            }
        }
        if !settings.unixsocket.is_empty() {
            let path = PathBuf::from(&settings.unixsocket);
            listeners.unix = Some((listen_unix(&path, settings.unixsocketperm)?, path.into()));
        }
        Ok(listeners)
    }

    /// The port that is listened on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// All addresses, for the ready line.
    pub fn addresses(&self) -> Vec<String> {
        let tcp = self
            .tcp
            .iter()
            .filter_map(|listener| listener.local_addr().ok());
        let mut addresses: Vec<String> = tcp.map(|address| address.to_string()).collect();
        addresses.extend(self.unix.iter().map(|(_, path)| path.display().to_string()));
        addresses
    }

    /// The next connection on any of them.
    pub async fn accept(&self) -> io::Result<NewConnection> {
        std::future::poll_fn(|cx| {
            for listener in &self.tcp {
                if let std::task::Poll::Ready(accepted) = listener.poll_accept(cx) {
                    return std::task::Poll::Ready(accepted.map(|(stream, peer)| {
                        let unknown = || SocketAddr::from(([0; 4], 0));
                        NewConnection {
                            local_address: stream.local_addr().unwrap_or_else(|_| unknown()).into(),
                            stream: Stream::Tcp(stream, peer),
                        }
                    }));
                }
            }
            if let Some((listener, path)) = &self.unix
                && let std::task::Poll::Ready(accepted) = listener.poll_accept(cx)
            {
                return std::task::Poll::Ready(accepted.map(|(stream, _)| NewConnection {
                    stream: Stream::Unix(stream),
                    local_address: Address::Unix(path.clone()),
                }));
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Removes the Unix socket's file.
    pub fn close(self) {
        if let Some((_, path)) = self.unix {
            let _ = std::fs::remove_file(&*path);
        }
    }
}

fn listen(at: SocketAddr, backlog: usize) -> io::Result<TcpListener> {
    let domain = if at.is_ipv6() {
        socket2::Domain::IPV6
    } else {
        socket2::Domain::IPV4
    };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(backlog.min(i32::MAX as usize) as i32)?;
    TcpListener::from_std(socket.into())
}

fn listen_unix(path: &PathBuf, mode: u32) -> Result<UnixListener, Fatal> {
    let failed = |error: io::Error| {
        Fatal::new(format!(
            "cannot listen on the Unix socket {}: {error}",
            path.display()
        ))
    };
    // A socket that nobody listens on is left over from a crash. Anything else is not ours.
    let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = || {
        let connected = std::os::unix::net::UnixStream::connect(path);
        connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if is_socket && refused() {
        let _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    if mode != 0 {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).map_err(failed)?;
    }
    Ok(listener)
}

/// Why a connection is not served, as an error line; nothing if it is.
pub fn refusal(new: &NewConnection, settings: &Settings, full: bool) -> Option<&'static str> {
    if full {
        return Some("-ERR max number of clients reached\r\n");
    }
    let remote = match &new.stream {
        Stream::Tcp(_, peer) => !peer.ip().to_canonical().is_loopback(),
        Stream::Unix(_) => false,
    };
    (remote && settings.protected_mode && settings.requirepass.is_empty()).then_some(
        "-DENIED protected-mode is on and no password is set: connect from this machine, set \
         requirepass, or start with --protected-mode no\r\n",
    )
}

impl NewConnection {
    /// Tells the client why it is not served, and closes.
    pub fn refuse(self, line: &str) {
        let _ = match &self.stream {
            Stream::Tcp(stream, _) => stream.try_write(line.as_bytes()),
            Stream::Unix(stream) => stream.try_write(line.as_bytes()),
        };
    }

    /// Sets TCP keepalive; 0: off.
    pub fn keep_alive(&self, seconds: usize) {
        if let Stream::Tcp(stream, _) = &self.stream
            && seconds > 0
        {
            let time = std::time::Duration::from_secs(seconds as u64);
            let keepalive = socket2::TcpKeepalive::new().with_time(time);
            let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
        }
    }

    /// The socket, to be moved to a shard thread, and the client's record.
    pub fn into_parts(self, id: u64, shard: usize, now_ms: u64) -> (Accepted, Arc<Client>) {
        let local_address = self.local_address;
        let (accepted, address, fd) = match self.stream {
            Stream::Tcp(stream, peer) => {
                let fd = stream.as_raw_fd();
                let accepted = stream.into_std().map(Accepted::Tcp);
                (accepted, peer.into(), fd)
            }
            Stream::Unix(stream) => {
                let fd = stream.as_raw_fd();
                let accepted = stream.into_std().map(Accepted::Unix);
                (accepted, local_address.clone(), fd)
            }
        };
        let addresses = (address, local_address);
        let client = Arc::new(Client::new(id, shard, addresses, fd, now_ms));
        (
            accepted.expect("a socket that was accepted can be taken out of the event loop"),
            client,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        std::fs::write(&path, "a file of somebody").unwrap();
        assert!(listen_unix(&path, 0).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file of somebody");
        std::fs::remove_file(&path).unwrap();
        let first = listen_unix(&path, 0).unwrap();
        assert!(listen_unix(&path, 0).is_err(), "it is listened on");
        // A crash leaves the file.
        drop(first);
        assert!(path.exists());
        drop(listen_unix(&path, 0o700).unwrap());
    }
}
