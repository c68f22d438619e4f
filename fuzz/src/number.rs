//! Numbers near the ends of what a number can be: random ones hardly ever come there.

use bolero::TypeGenerator;

/// A number near an end, or any.
#[derive(Clone, Copy, Debug, TypeGenerator)]
pub enum Number {
    /// A small one.
    Small(u8),
    /// Near a power of two, a time of now, or the greatest of all.
    Near(End, i8),
    /// Any.
    Any(u64),
}

/// Where arithmetic ends, or a limit stands.
#[derive(Clone, Copy, Debug, TypeGenerator)]
#[expect(missing_docs, reason = "the names say it")]
pub enum End {
    Zero,
    I32,
    U32,
    /// The highest sequence that may be asked for.
    Asked,
    I64,
    U64,
    /// A time in nanoseconds, as the world's clock shows it.
    Now,
}

/// The time at which runs begin, nanoseconds since the Unix epoch.
pub const NOW: i64 = 1_790_000_000_000_000_000;

impl Number {
    /// As it is.
    #[must_use]
    pub fn u64(self) -> u64 {
        let (end, delta) = match self {
            Self::Small(number) => return number.into(),
            Self::Any(number) => return number,
            Self::Near(end, delta) => (end, delta),
        };
        let end = match end {
            End::Zero => 0,
            End::I32 => 1 << 31,
            End::U32 => 1 << 32,
            End::Asked => 1 << 62,
            End::I64 => 1 << 63,
            End::U64 => u64::MAX,
            End::Now => NOW.cast_unsigned(),
        };
        end.wrapping_add_signed(delta.into())
    }

    /// The same bits with a sign.
    #[must_use]
    pub fn i64(self) -> i64 {
        self.u64().cast_signed()
    }

    /// Its lower half.
    #[must_use]
    pub fn u32(self) -> u32 {
        self.u64() as u32
    }
}
