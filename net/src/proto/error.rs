//! What a peer did wrong: the exact `-ERR` texts, and the exact reasons under which a closed connection is listed.

use std::fmt;

/// A peer broke the protocol: the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    /// No verb starts like this, or a payload is not followed by CRLF.
    #[error("unknown protocol operation")]
    UnknownOperation,
    /// The arguments of a control line are longer than allowed.
    #[error("maximum control line exceeded")]
    ControlLineTooLong,
    /// A message is larger than allowed.
    #[error("maximum payload violation")]
    PayloadTooLarge,
    /// HPUB by a client that did not announce headers.
    #[error("message headers not supported")]
    HeadersNotSupported,
    /// A known verb with arguments that make no sense.
    #[error("bad arguments: {0}")]
    Arguments(Violation),
}

/// Which arguments made no sense. Only logs see the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not two or three arguments.
    #[error("PUB takes subject, optional reply and size")]
    Pub,
    /// Not a number.
    #[error("the size of PUB is not a number of at most nine digits")]
    PubSize,
    /// Not three or four arguments.
    #[error("HPUB takes subject, optional reply, header size and total size")]
    Hpub,
    /// Not numbers, or the header block is larger than the whole.
    #[error(
        "the sizes of HPUB are not numbers of at most nine digits, or header size exceeds total size"
    )]
    HpubSize,
    /// Not two or three arguments.
    #[error("SUB takes subject, optional queue and sid")]
    Sub,
    /// Not one or two arguments.
    #[error("UNSUB takes sid and optional max")]
    Unsub,
    /// MSG or HMSG of a server.
    #[error("MSG takes subject, sid, optional reply and sizes")]
    Msg,
    /// The JSON of CONNECT.
    #[error("CONNECT takes a JSON object")]
    Connect,
    /// The JSON of INFO.
    #[error("INFO takes a JSON object")]
    Info,
}

impl ProtoError {
    /// What the peer is told before the connection is closed; `None`: nothing, as the real server does.
    #[must_use]
    pub const fn text(self) -> Option<ErrText<'static>> {
        match self {
            Self::UnknownOperation => Some(ErrText::UnknownOperation),
            Self::ControlLineTooLong => Some(ErrText::ControlLineTooLong),
            Self::PayloadTooLarge => Some(ErrText::PayloadTooLarge),
            Self::HeadersNotSupported | Self::Arguments(_) => None,
        }
    }

    /// Under which reason the closed connection is listed.
    #[must_use]
    pub const fn close_reason(self) -> CloseReason {
        match self {
            Self::ControlLineTooLong => CloseReason::MaxControlLine,
            Self::PayloadTooLarge => CloseReason::MaxPayload,
            Self::UnknownOperation | Self::HeadersNotSupported | Self::Arguments(_) => {
                CloseReason::ProtocolViolation
            }
        }
    }
}

/// The text between the quotes of an `-ERR` line. Texts with a subject carry the peer's own bytes, unescaped, which is
/// safe: a subject never holds a line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrText<'a> {
    /// Closes.
    UnknownOperation,
    /// Closes.
    ControlLineTooLong,
    /// Closes.
    PayloadTooLarge,
    /// Closes; before CONNECT is accepted.
    InvalidClientProtocol,
    /// Closes; before CONNECT is accepted.
    NoRespondersRequiresHeaders,
    /// Closes.
    AuthorizationViolation,
    /// Closes.
    AuthenticationTimeout,
    /// Closes.
    UserAuthenticationExpired,
    /// Closes.
    AccountAuthenticationExpired,
    /// Closes.
    UserAuthenticationRevoked,
    /// Closes.
    TlsRequired,
    /// Closes: PINGs were not answered.
    StaleConnection,
    /// Closes.
    MaxConnections,
    /// Closes.
    MaxAccountConnections,
    /// Closes: too many TLS handshakes at once.
    ConnectionThrottling,
    /// Closes.
    FailedAccountRegistration,
    /// Closes: a client spoke to another kind of listener.
    WrongPort(Port),
    /// Stays open; the subscription is refused.
    MaxSubscriptions,
    /// Stays open; the subscription is refused.
    InvalidSubject,
    /// Stays open; the message is dropped. Pedantic connections only.
    InvalidPublishSubject,
    /// Stays open; the message is dropped.
    PublishDenied {
        /// Where to.
        subject: &'a [u8],
    },
    /// Stays open; the message is dropped.
    ReplyDenied {
        /// The reply subject.
        reply: &'a [u8],
    },
    /// Stays open; the subscription is refused.
    SubscriptionDenied {
        /// The filter.
        subject: &'a [u8],
        /// The queue group.
        queue: Option<&'a [u8]>,
    },
    /// Stays open; the subscription is refused.
    TooManyTokens {
        /// The filter.
        subject: &'a [u8],
    },
}

/// Listeners that are not for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// `attempted to connect to route port`
    Route,
    /// `attempted to connect to leaf node port`
    LeafNode,
    /// `attempted to connect to gateway port`
    Gateway,
    /// `wrong port`
    Other,
}

impl ErrText<'_> {
    /// Appends the text, without quotes.
    pub fn write(&self, out: &mut impl super::encoder::Out) {
        match *self {
            Self::PublishDenied { subject } => {
                out.put(b"Permissions Violation for Publish to \"");
                out.put(subject);
                out.put(b"\"");
            }
            Self::ReplyDenied { reply } => {
                out.put(b"Permissions Violation for Publish with Reply of \"");
                out.put(reply);
                out.put(b"\"");
            }
            Self::SubscriptionDenied { subject, queue } => {
                out.put(b"Permissions Violation for Subscription to \"");
                out.put(subject);
                out.put(b"\"");
                if let Some(queue) = queue {
                    out.put(b" using queue \"");
                    out.put(queue);
                    out.put(b"\"");
                }
            }
            Self::TooManyTokens { subject } => {
                out.put(b"Permissions Violation for Subscription to \"");
                out.put(subject);
                out.put(b"\", too many tokens");
            }
            _ => out.put(self.fixed().as_bytes()),
        }
    }

    const fn fixed(&self) -> &'static str {
        match self {
            Self::UnknownOperation => "Unknown Protocol Operation",
            Self::ControlLineTooLong => "maximum control line exceeded",
            Self::PayloadTooLarge => "Maximum Payload Violation",
            Self::InvalidClientProtocol => "invalid client protocol",
            Self::NoRespondersRequiresHeaders => "no responders requires headers support",
            Self::AuthorizationViolation => "Authorization Violation",
            Self::AuthenticationTimeout => "Authentication Timeout",
            Self::UserAuthenticationExpired => "User Authentication Expired",
            Self::AccountAuthenticationExpired => "Account Authentication Expired",
            Self::UserAuthenticationRevoked => "User Authentication Revoked",
            Self::TlsRequired => "Secure Connection - TLS Required",
            Self::StaleConnection => "Stale Connection",
            Self::MaxConnections => "maximum connections exceeded",
            Self::MaxAccountConnections => "maximum account active connections exceeded",
            Self::ConnectionThrottling => {
                "Connection throttling is active. Please try again later."
            }
            Self::FailedAccountRegistration => "Failed Account Registration",
            Self::WrongPort(Port::Route) => "attempted to connect to route port",
            Self::WrongPort(Port::LeafNode) => "attempted to connect to leaf node port",
            Self::WrongPort(Port::Gateway) => "attempted to connect to gateway port",
            Self::WrongPort(Port::Other) => "wrong port",
            Self::MaxSubscriptions => "maximum subscriptions exceeded",
            Self::InvalidSubject => "Invalid Subject",
            Self::InvalidPublishSubject => "Invalid Publish Subject",
            // Written by `write`.
            Self::PublishDenied { .. }
            | Self::ReplyDenied { .. }
            | Self::SubscriptionDenied { .. }
            | Self::TooManyTokens { .. } => "Permissions Violation",
        }
    }
}

impl fmt::Display for ErrText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

macro_rules! close_reasons {
    ($($name:ident = $text:literal,)*) => {
        /// Why a connection was closed. Monitoring and events show exactly these words.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CloseReason {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl CloseReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The words that monitoring shows.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

close_reasons! {
    ClientClosed = "Client Closed",
    AuthenticationTimeout = "Authentication Timeout",
    AuthenticationFailure = "Authentication Failure",
    TlsHandshake = "TLS Handshake Failure",
    SlowConsumerPendingBytes = "Slow Consumer (Pending Bytes)",
    SlowConsumerWriteDeadline = "Slow Consumer (Write Deadline)",
    WriteError = "Write Error",
    ReadError = "Read Error",
    ParseError = "Parse Error",
    StaleConnection = "Stale Connection",
    ProtocolViolation = "Protocol Violation",
    BadClientProtocol = "Bad Client Protocol Version",
    WrongPort = "Incorrect Port",
    MaxConnections = "Maximum Connections Exceeded",
    MaxAccountConnections = "Maximum Account Connections Exceeded",
    MaxPayload = "Maximum Message Payload Exceeded",
    MaxControlLine = "Maximum Control Line Exceeded",
    MaxSubscriptions = "Maximum Subscriptions Exceeded",
    DuplicateRoute = "Duplicate Route",
    RouteRemoved = "Route Removed",
    ServerShutdown = "Server Shutdown",
    AuthenticationExpired = "Authentication Expired",
    WrongGateway = "Wrong Gateway",
    MissingAccount = "Missing Account",
    Revocation = "Credentials Revoked",
    InternalClient = "Internal Client",
    HeaderViolation = "Message Header Violation",
    NoRespondersRequiresHeaders = "No Responders Requires Headers",
    ClusterNameConflict = "Cluster Name Conflict",
    DuplicateRemoteLeafNode = "Duplicate Remote LeafNode Connection",
    DuplicateClientId = "Duplicate Client ID",
    DuplicateServerName = "Duplicate Server Name",
    MinimumVersion = "Minimum Version Required",
    ClusterNamesIdentical = "Cluster Names Identical",
    Kicked = "Kicked",
    ProxyNotTrusted = "Proxy Not Trusted",
    ProxyRequired = "Proxy Required",
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
