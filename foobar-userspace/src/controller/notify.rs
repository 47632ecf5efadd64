//! Tells the service manager how the controller is (sd_notify(3)).

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use crate::kernel::clock;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Ready,
    Reloading,
    Stopping,
    /// Still at work: the manager restarts who does not say so in time.
    Alive,
    /// The process of this id serves now.
    Succeeded(u32),
}

/// Sends `state` to `$NOTIFY_SOCKET`; without one there is nobody to tell.
pub fn notify(state: State) {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let text = match state {
        State::Ready => "READY=1".to_owned(),
        State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic() / 1_000),
        State::Stopping => "STOPPING=1".to_owned(),
        State::Alive => "WATCHDOG=1".to_owned(),
        State::Succeeded(pid) => format!("MAINPID={pid}\nREADY=1"),
    };
    if let Err(error) = send(address.as_bytes(), &text) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

fn send(address: &[u8], text: &str) -> io::Result<()> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(text.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_a_socket_in_the_file_system_and_an_abstract_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        send(path.as_os_str().as_bytes(), "READY=1").expect("sent");
        assert_eq!(received(&manager), "READY=1");

        let name = format!("foobar-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let manager = UnixDatagram::bind_addr(&address).expect("bound");
        send(format!("@{name}").as_bytes(), "STOPPING=1").expect("sent");
        assert_eq!(received(&manager), "STOPPING=1");
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("received");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}
