//! Signals that the operator sends to the process.

use std::io;
use std::task::{Context, Poll};

use rustix::process::{Pid, Signal as Number, kill_process};
use tokio::signal::unix;

/// One of the signals that this server acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// INT: stop.
    Interrupt,
    /// TERM: stop.
    Terminate,
    /// HUP: reload the configuration.
    Hangup,
    /// USR1: reopen the log file.
    User1,
    /// USR2: lame duck.
    User2,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Interrupt,
        Self::Terminate,
        Self::Hangup,
        Self::User1,
        Self::User2,
    ];

    fn kind(self) -> unix::SignalKind {
        match self {
            Self::Interrupt => unix::SignalKind::interrupt(),
            Self::Terminate => unix::SignalKind::terminate(),
            Self::Hangup => unix::SignalKind::hangup(),
            Self::User1 => unix::SignalKind::user_defined1(),
            Self::User2 => unix::SignalKind::user_defined2(),
        }
    }
}

/// The signals that arrive from its creation on. Their default actions are off for the rest of the process.
///
/// In a simulation nobody sends signals: it waits for ever.
#[derive(Debug)]
pub struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Starts to listen to the signals in `which`.
    ///
    /// # Errors
    /// When the system refuses to install a handler.
    pub fn listen(which: &[Signal]) -> io::Result<Self> {
        if crate::in_sim() {
            return Ok(Self(Vec::new()));
        }
        let listen = |signal: &Signal| Ok((*signal, unix::signal(signal.kind())?));
        Ok(Self(which.iter().map(listen).collect::<io::Result<_>>()?))
    }

    /// The next signal. Several of one kind that come before this is called count as one.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        for (signal, stream) in &mut self.0 {
            if let Poll::Ready(Some(())) = stream.poll_recv(cx) {
                return Poll::Ready(*signal);
            }
        }
        Poll::Pending
    }
}

/// Sends `signal` to the process `pid`, or kills it outright for `None`.
///
/// # Errors
/// There is no such process, or it belongs to somebody else.
pub fn send(pid: u32, signal: Option<Signal>) -> io::Result<()> {
    let number = match signal {
        None => Number::KILL,
        Some(Signal::Interrupt) => Number::INT,
        Some(Signal::Terminate) => Number::TERM,
        Some(Signal::Hangup) => Number::HUP,
        Some(Signal::User1) => Number::USR1,
        Some(Signal::User2) => Number::USR2,
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("this is no process id"))?;
    Ok(kill_process(pid, number)?)
}
