//! Bytes of a protocol conversation, made of pieces that are nearly right, and cut anywhere.
//!
//! Random bytes hardly ever get past the first verb; pieces do. A fuzzer with coverage feedback may still write any
//! bytes it likes, through [`Piece::Raw`].

use bolero::TypeGenerator;

/// What arrives on a connection, and in which portions.
#[derive(Clone, Debug, TypeGenerator)]
pub struct Conversation {
    pieces: Vec<Piece>,
    cuts: Vec<u8>,
}

#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    Raw(Vec<u8>),
    Line {
        verb: Verb,
        arguments: Vec<Argument>,
        end: End,
    },
    /// A verb with the right sizes, then a payload.
    Message {
        verb: Verb,
        subject: Argument,
        reply: Option<Argument>,
        headers: u8,
        body: Vec<u8>,
        end: End,
    },
    Long {
        verb: Verb,
        byte: u8,
        count: u16,
    },
}

macro_rules! words {
    ($name:ident: $($variant:ident = $text:expr,)*) => {
        #[derive(Clone, Copy, Debug, TypeGenerator)]
        enum $name { $($variant,)* }
        impl $name {
            fn bytes(self) -> &'static [u8] {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

words! { Verb:
    Pub = b"PUB ", Hpub = b"HPUB ", Sub = b"SUB ", Unsub = b"unsub\t", Ping = b"PING", Pong = b"pONG", Connect = b"CONNECT",
    Info = b"INFO ", Okay = b"+OK", Err = b"-ERR ", Msg = b"MSG ", Hmsg = b"hmsg ", Wrong = b"XYZ ", Bare = b"PUB", None = b"",
}

words! { Argument:
    Foo = b"foo ", Wild = b"a.*.> ", Sid = b"7 ", Zero = b"0 ", Twelve = b"12\t", Large = b"999999999 ", Larger = b"9999999999 ",
    Negative = b"-1 ", Signed = b"+1 ", Return = b"\r", Blanks = b" \t ", Nul = b"\0", High = b"\xff\xfe ", Colon = b"A: b ",
}

words! { End:
    CrLf = b"\r\n", CrLfAgain = b"\r\n ", Lf = b"\n", Cr = b"\r", CrCrLf = b"\r\r\n", None = b"",
}

impl Conversation {
    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            piece.write(&mut out);
        }
        out
    }

    /// The bytes in portions.
    pub fn portions<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = bytes;
        let mut cuts = self.cuts.iter();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let size = cuts
                .next()
                .map_or(rest.len(), |&cut| usize::from(cut).min(rest.len()));
            let (portion, behind) = rest.split_at(size);
            rest = behind;
            Some(portion)
        })
    }
}

impl Piece {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(bytes) => out.extend_from_slice(bytes),
            Self::Line {
                verb,
                arguments,
                end,
            } => {
                out.extend_from_slice(verb.bytes());
                for argument in arguments {
                    out.extend_from_slice(argument.bytes());
                }
                out.extend_from_slice(end.bytes());
            }
            Self::Message {
                verb,
                subject,
                reply,
                headers,
                body,
                end,
            } => {
                out.extend_from_slice(verb.bytes());
                out.extend_from_slice(subject.bytes());
                if let Some(reply) = reply {
                    out.extend_from_slice(reply.bytes());
                }
                let numbers = format!("{headers} {}\r\n", body.len() + usize::from(*headers));
                out.extend_from_slice(numbers.as_bytes());
                out.extend(std::iter::repeat_n(b'h', usize::from(*headers)));
                out.extend_from_slice(body);
                out.extend_from_slice(end.bytes());
            }
            Self::Long { verb, byte, count } => {
                out.extend_from_slice(verb.bytes());
                out.extend(std::iter::repeat_n(*byte, usize::from(*count % 1024)));
            }
        }
    }
}
