//! The door to `catch_unwind`: a panic that ends one thing, and not everything that shares a thread with it.
//!
//! Who contains a panic says what becomes of the state that was being changed: nothing may believe it any more. The panic's
//! own lines (message, file, backtrace) have been printed by then.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a contained panic said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked(Box<str>);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Panicked {}

/// Runs `run`, and returns its panic as a value.
///
/// In a simulation a panic that nobody planted goes on and ends the run: there it is a bug that was found.
///
/// # Errors
/// It panicked: what it was changing is in no known state.
pub fn contain<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        #[cfg(feature = "sim")]
        if crate::in_sim() && !crate::sim::plants_a_panic() {
            std::panic::resume_unwind(panic);
        }
        Panicked(words(&*panic).into())
    })
}

/// Panics if the bug of this name is planted and this is the place for it; nothing in builds without the feature `sim`.
#[inline]
pub fn panic_if_planted(bug: &str, here: bool) {
    assert!(!(here && crate::planted(bug)), "planted: {bug}");
}

fn words(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        return text;
    }
    panic
        .downcast_ref::<String>()
        .map_or("a panic without words", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_value() {
        assert_eq!(contain(|| 7), Ok(7));
        let said = |run: fn()| contain(run).map_err(|panic| panic.to_string());
        assert_eq!(said(|| panic!("fixed")), Err("fixed".to_owned()));
        assert_eq!(said(|| panic!("{}", 1 + 1)), Err("2".to_owned()));
        assert_eq!(
            said(|| std::panic::panic_any(7_u8)),
            Err("a panic without words".to_owned())
        );
    }

    #[test]
    fn only_what_is_planted_here_panics() {
        panic_if_planted("panic-at-x", true);
        let planted = crate::sim::plant_here("panic-at-x");
        panic_if_planted("panic-at-x", false);
        panic_if_planted("panic-at-y", true);
        assert!(contain(|| panic_if_planted("panic-at-x", true)).is_err());
        drop(planted);
        panic_if_planted("panic-at-x", true);
    }
}
