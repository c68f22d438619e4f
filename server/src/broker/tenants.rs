//! All accounts of one server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::account::Account;
use super::admission::Admission;
use super::message::ClientId;
use crate::caps;

/// Name of the account of everybody who has no other.
pub const GLOBAL_ACCOUNT: &str = "$G";
/// Name of the account in which the server speaks about itself.
pub const SYSTEM_ACCOUNT: &str = "$SYS";

/// The accounts of one server.
pub struct Broker {
    accounts: RwLock<BTreeMap<Box<str>, Arc<Account>>>,
    global: Arc<Account>,
    system: Arc<Account>,
    next_client: AtomicU64,
    admission: Arc<Admission>,
}

impl Broker {
    /// A broker with the global and the system account.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let global = Arc::new(Account::new(GLOBAL_ACCOUNT));
        let system = Arc::new(Account::new(SYSTEM_ACCOUNT));
        let accounts =
            [&global, &system].map(|account| (account.name().into(), Arc::clone(account)));
        Arc::new(Self {
            accounts: RwLock::new(accounts.into()),
            global,
            system,
            next_client: AtomicU64::new(1),
            admission: Admission::new(caps::LARGE_BYTES_MAX),
        })
    }

    /// Memory for large messages on their way in.
    #[must_use]
    pub const fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The account of everybody who has no other.
    #[must_use]
    pub fn global(&self) -> Arc<Account> {
        Arc::clone(&self.global)
    }

    /// The account in which the server speaks about itself.
    #[must_use]
    pub fn system(&self) -> Arc<Account> {
        Arc::clone(&self.system)
    }

    /// An account by name.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.accounts.read().get(name).cloned()
    }

    /// An account by name, made if there is none yet.
    pub fn account_or_create(&self, name: &str) -> Arc<Account> {
        let mut accounts = self.accounts.write();
        let make = || Arc::new(Account::new(name));
        Arc::clone(accounts.entry(name.into()).or_insert_with(make))
    }

    /// All accounts, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        self.accounts.read().values().cloned().collect()
    }

    /// The number of the next connection, of whatever kind.
    pub fn next_client_id(&self) -> ClientId {
        ClientId(self.next_client.fetch_add(1, Ordering::Relaxed))
    }
}
