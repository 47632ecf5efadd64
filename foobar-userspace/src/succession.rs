//! One process after another without a lost connection: a new one is started from the binary on the disk, shows that it
//! can serve, and is given the listening sockets, the node's lock and the keys of session tickets.
//!
//! The lock is flock(2)'s, on the open file: who has the descriptor has the lock, and no moment is without it.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Why a process cannot be succeeded by another; the one before serves on.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    #[error("cannot meet the new process at {}", path.display())]
    Meet { path: PathBuf, source: io::Error },
    #[error("cannot start {}", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("the new process ended ({status}); its log says why")]
    Ended { status: String },
    #[error("the new process was not ready within {0:?}")]
    TooSlow(Duration),
    #[error("the conversation with the other process broke off")]
    Broken(#[from] io::Error),
}

/// The new process as the old one sees it.
#[derive(Debug)]
pub struct Heir {
    stream: UnixStream,
    child: Child,
}

/// The old process as the new one sees it.
#[derive(Debug)]
pub struct Ancestor(UnixStream);

/// What is handed over, beside the descriptors.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Estate {
    /// Rotation in seconds, and the keys.
    pub tickets: Vec<(u64, Vec<u8>)>,
}

/// What the new process gets.
#[derive(Debug)]
pub struct Inheritance {
    pub estate: Estate,
    /// The node's lock.
    pub lock: OwnedFd,
    /// The administration socket.
    pub admin: OwnedFd,
    pub sockets: Vec<OwnedFd>,
}

#[derive(Deserialize, Serialize)]
struct Will {
    estate: Estate,
    descriptors: usize,
}

impl Heir {
    /// Starts the binary that is on the disk now with this process's arguments, and waits until it has looked at its
    /// configuration and could serve.
    ///
    /// # Errors
    /// It cannot be started, or says by its end that it could not serve.
    pub fn raise(meeting: &Path, patience: Duration) -> Result<Self, SuccessionError> {
        let met = |source| SuccessionError::Meet {
            path: meeting.to_owned(),
            source,
        };
        match fs::remove_file(meeting) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(met(error)),
            _ => {}
        }
        let listener = UnixListener::bind(meeting).map_err(met)?;
        fs::set_permissions(meeting, fs::Permissions::from_mode(0o600)).map_err(met)?;
        listener.set_nonblocking(true).map_err(met)?;
        let program = program();
        let mut child = Command::new(&program)
            .args(env::args_os().skip(1))
            .env(MEETING, meeting)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|source| SuccessionError::Start {
                path: program,
                source,
            })?;
        let met = meet(&listener, &mut child, patience);
        // It is met, or never will be.
        let _ = fs::remove_file(meeting);
        match met {
            Ok(stream) => Ok(Self { stream, child }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands everything over; the first descriptors are the lock and the administration socket.
    ///
    /// # Errors
    /// The new process is gone.
    pub fn bequeath(
        &mut self,
        estate: Estate,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SuccessionError> {
        let will = Will {
            estate,
            descriptors: descriptors.len(),
        };
        let mut line = serde_json::to_vec(&will).map_err(io::Error::from)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        // Each goes with a byte of its own, behind the new process's word: it must not be read as part of the line.
        expect(&self.stream, READ)?;
        for part in descriptors.chunks(DESCRIPTORS_AT_ONCE) {
            send(&self.stream, part)?;
        }
        Ok(())
    }

    /// Waits until the new process serves.
    ///
    /// # Errors
    /// It does not; it is ended then, and the old one has all that it had.
    pub fn take_leave(mut self, patience: Duration) -> Result<(), SuccessionError> {
        self.stream.set_read_timeout(Some(patience))?;
        let served = expect(&self.stream, SERVING);
        if served.is_err() {
            end(&mut self.child);
        }
        served
    }
}

impl Ancestor {
    /// The process that this one was started by to succeed it.
    ///
    /// # Errors
    /// It is not where it said.
    pub fn of_this_process() -> Result<Option<Self>, SuccessionError> {
        let Some(path) = env::var_os(MEETING) else {
            return Ok(None);
        };
        let path = PathBuf::from(path);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Some(Self(stream))),
            // A value that was left over, as after a restart by hand: nobody is there to succeed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SuccessionError::Meet { path, source }),
        }
    }

    /// Says that this process could serve, and takes over what the old one has.
    ///
    /// # Errors
    /// The old process changed its mind.
    pub fn succeed(&mut self) -> Result<Inheritance, SuccessionError> {
        self.0.write_all(&[READY])?;
        let mut line = Vec::new();
        BufReader::with_capacity(1, &self.0).read_until(b'\n', &mut line)?;
        let will: Will = serde_json::from_slice(&line).map_err(io::Error::from)?;
        self.0.write_all(&[READ])?;
        let mut descriptors = Vec::new();
        while descriptors.len() < will.descriptors {
            receive(&self.0, &mut descriptors)?;
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = || {
            descriptors
                .next()
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        Ok(Inheritance {
            estate: will.estate,
            lock: next()?,
            admin: next()?,
            sockets: descriptors.collect(),
        })
    }

    /// Says that this process serves.
    ///
    /// # Errors
    /// The old process is gone.
    pub fn release(mut self) -> Result<(), SuccessionError> {
        Ok(self.0.write_all(&[SERVING])?)
    }
}

/// The binary at the place where this process's was; an upgrade has put another there.
fn program() -> PathBuf {
    let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("foobar"));
    let text = program.to_string_lossy();
    match text.strip_suffix(" (deleted)") {
        Some(path) => PathBuf::from(path),
        None => program,
    }
}

fn meet(
    listener: &UnixListener,
    child: &mut Child,
    patience: Duration,
) -> Result<UnixStream, SuccessionError> {
    let until = Instant::now() + patience;
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Err(SuccessionError::Ended {
                status: status.to_string(),
            });
        }
        if Instant::now() >= until {
            return Err(SuccessionError::TooSlow(patience));
        }
        thread::sleep(LOOK);
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    match expect(&stream, READY) {
        Ok(()) => Ok(stream),
        Err(error) => match child.wait() {
            Ok(status) => Err(SuccessionError::Ended {
                status: status.to_string(),
            }),
            Err(_) => Err(error),
        },
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn expect(stream: &UnixStream, word: u8) -> Result<(), SuccessionError> {
    use io::Read as _;
    let mut heard = [0];
    let mut stream = stream;
    stream.read_exact(&mut heard)?;
    match heard {
        [heard] if heard == word => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

fn send(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_AT_ONCE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    sendmsg(
        stream.as_fd(),
        &[IoSlice::new(&[DESCRIPTORS])],
        &mut ancillary,
        SendFlags::empty(),
    )?;
    Ok(())
}

fn receive(stream: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_AT_ONCE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let message = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut word)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(())
}

/// Tells a process where the one that it shall succeed waits.
const MEETING: &str = "FOOBAR_SUCCEEDS";
const READY: u8 = b'r';
const READ: u8 = b'd';
const DESCRIPTORS: u8 = b'f';
const SERVING: u8 = b's';
/// SCM_MAX_FD is 253.
const DESCRIPTORS_AT_ONCE: usize = 64;
const LOOK: Duration = Duration::from_millis(10);

/// Where the two of a node meet.
#[must_use]
pub fn meeting(node: &str) -> PathBuf {
    let name: OsString = format!("{}.succession", node.replace('/', "_")).into();
    Path::new("/run/foobar").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_keys_arrive_in_their_order() {
        let (old, new) = UnixStream::pair().expect("a pair");
        let child = Command::new("sleep").arg("60").spawn().expect("a process");
        let files: Vec<fs::File> = (0..150)
            .map(|index| {
                let mut file = tempfile::tempfile().expect("a file");
                write!(file, "{index}").expect("written");
                file
            })
            .collect();
        let heir = thread::spawn(move || {
            let mut ancestor = Ancestor(new);
            let inheritance = ancestor.succeed().expect("all of it");
            ancestor.release().expect("heard");
            inheritance
        });
        let mut old = Heir { stream: old, child };
        expect(&old.stream, READY).expect("ready");
        let descriptors: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
        let estate = Estate {
            tickets: vec![(60, vec![7; 160])],
        };
        old.bequeath(estate, &descriptors).expect("sent");
        let Heir { stream, mut child } = old;
        expect(&stream, SERVING).expect("serving");
        end(&mut child);
        let inheritance = heir.join().expect("the heir");
        assert_eq!(inheritance.estate.tickets, [(60, vec![7; 160])]);
        assert_eq!(inheritance.sockets.len(), 148);
        let mut last = fs::File::from(inheritance.sockets.into_iter().next_back().expect("many"));
        use io::{Read as _, Seek as _};
        last.rewind().expect("a file");
        let mut text = String::new();
        last.read_to_string(&mut text).expect("text");
        assert_eq!(text, "149");
    }
}
