//! Who may connect, and as whom.
//!
//! A pure decision over the configuration and what a client said in CONNECT. Users, one token, or nobody asked; accounts
//! and permissions come with the security issue, for which [`Identity`] already carries the account.

use halyard_net::proto::Connect;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::broker::GLOBAL_ACCOUNT;
use crate::config::Authorization;

/// Who a client is, once it is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's name; `None` if the server asks for no user.
    pub user: Option<String>,
    /// The account that the client lives in.
    pub account: String,
    /// What it was let in by.
    pub credential: Credential,
}

/// What a client was let in by, without telling it: a digest to compare with the rules of later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credential([u8; 32]);

impl Credential {
    /// Of a password or token.
    fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

impl Identity {
    fn in_global(user: Option<&str>, credential: Credential) -> Self {
        Self {
            user: user.map(ToOwned::to_owned),
            account: GLOBAL_ACCOUNT.to_owned(),
            credential,
        }
    }
}

/// Decides who a client is that has sent `connect`; `None` refuses it.
#[must_use]
pub fn identify(rules: &Authorization, connect: &Connect) -> Option<Identity> {
    // Naming an account was a way into any of them once (CVE-2022-24450): it is refused, not ignored.
    if !connect.account.is_empty() || connect.new_account {
        return None;
    }
    if let Some(token) = &rules.token {
        return same(&connect.auth_token, token)
            .then(|| Identity::in_global(None, Credential::of(token)));
    }
    let shown = !connect.user.is_empty() || !connect.pass.is_empty();
    if let (Some(name), false) = (&rules.no_auth_user, shown || !connect.auth_token.is_empty()) {
        return Some(Identity::in_global(Some(name), Credential::default()));
    }
    if let Some(name) = &rules.user {
        let password = rules.password.as_deref().unwrap_or_default();
        // Both are compared whatever the first says, so that the time taken tells nothing.
        let matches = same(&connect.user, name) & same(&connect.pass, password);
        return matches.then(|| Identity::in_global(Some(name), Credential::of(password)));
    }
    if rules.users.is_empty() {
        return Some(Identity::in_global(None, Credential::default()));
    }
    let user = rules.users.iter().find(|user| user.name == connect.user)?;
    same(&connect.pass, &user.password)
        .then(|| Identity::in_global(Some(&user.name), Credential::of(&user.password)))
}

/// Whether a client that was let in as `user` by `credential` would be let in by it under changed rules.
#[must_use]
pub fn admits(rules: &Authorization, user: Option<&str>, credential: Credential) -> bool {
    let Some(name) = user else {
        return match &rules.token {
            Some(token) => credential == Credential::of(token),
            None => rules.user.is_none() && rules.users.is_empty(),
        };
    };
    if credential == Credential::default() {
        return rules.no_auth_user.as_deref() == Some(name);
    }
    if rules.user.as_deref() == Some(name) {
        return credential == Credential::of(rules.password.as_deref().unwrap_or_default());
    }
    let listed = rules.users.iter().find(|user| user.name == name);
    listed.is_some_and(|user| credential == Credential::of(&user.password))
}

/// Compares without telling by its time where the first difference is.
fn same(shown: &str, secret: &str) -> bool {
    shown.as_bytes().ct_eq(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::User;

    fn shown(user: &str, pass: &str, token: &str) -> Connect {
        let (user, pass, auth_token) = (user.to_owned(), pass.to_owned(), token.to_owned());
        Connect {
            user,
            pass,
            auth_token,
            ..Connect::default()
        }
    }

    #[test]
    fn open_servers_let_everybody_in_but_nobody_choose_an_account() {
        let open = Authorization::default();
        let identity = identify(&open, &shown("any", "thing", "")).unwrap();
        assert_eq!(
            identity,
            Identity {
                user: None,
                account: "$G".into(),
                credential: Credential::default(),
            }
        );
        let names = Connect {
            account: "$SYS".into(),
            ..Connect::default()
        };
        assert_eq!(identify(&open, &names), None);
        let makes = Connect {
            new_account: true,
            ..Connect::default()
        };
        assert_eq!(identify(&open, &makes), None);
    }

    #[test]
    fn one_user_or_one_token() {
        let mut rules = Authorization {
            user: Some("u".into()),
            password: Some("p".into()),
            ..Authorization::default()
        };
        assert_eq!(
            identify(&rules, &shown("u", "p", ""))
                .unwrap()
                .user
                .as_deref(),
            Some("u")
        );
        for (user, pass) in [("u", "q"), ("u", ""), ("", ""), ("v", "p"), ("u", "pp")] {
            assert_eq!(
                identify(&rules, &shown(user, pass, "")),
                None,
                "{user}:{pass}"
            );
        }
        rules = Authorization {
            token: Some("secret".into()),
            ..Authorization::default()
        };
        assert!(identify(&rules, &shown("", "", "secret")).is_some());
        assert!(identify(&rules, &shown("", "", "secreT")).is_none());
        assert!(identify(&rules, &shown("", "", "")).is_none());
    }

    #[test]
    fn named_users_and_the_one_without_credentials() {
        let user = |name: &str| User {
            name: name.into(),
            password: format!("{name}!"),
        };
        let mut rules = Authorization {
            users: vec![user("a"), user("b")],
            ..Authorization::default()
        };
        assert_eq!(
            identify(&rules, &shown("b", "b!", ""))
                .unwrap()
                .user
                .as_deref(),
            Some("b")
        );
        assert_eq!(identify(&rules, &shown("b", "a!", "")), None);
        assert_eq!(identify(&rules, &Connect::default()), None);
        rules.no_auth_user = Some("a".into());
        assert_eq!(
            identify(&rules, &Connect::default())
                .unwrap()
                .user
                .as_deref(),
            Some("a")
        );
        assert_eq!(
            identify(&rules, &shown("b", "wrong", "")),
            None,
            "wrong is not none"
        );
    }

    #[test]
    fn changed_rules_let_stay_whom_they_would_let_in() {
        let rules = |user: &str, password: &str| Authorization {
            users: vec![User {
                name: user.into(),
                password: password.into(),
            }],
            ..Authorization::default()
        };
        let token = |token: &str| Authorization {
            token: Some(token.into()),
            ..Authorization::default()
        };
        let open = Authorization::default();
        let mut guests = rules("g", "p");
        guests.no_auth_user = Some("g".into());
        let stays = |old: &Authorization, connect: Connect, new: &Authorization| {
            let identity = identify(old, &connect).unwrap();
            admits(new, identity.user.as_deref(), identity.credential)
        };
        let named = || shown("a", "p", "");
        assert!(stays(&rules("a", "p"), named(), &rules("a", "p")));
        assert!(
            !stays(&rules("a", "p"), named(), &rules("a", "q")),
            "another password"
        );
        assert!(
            !stays(&rules("a", "p"), named(), &rules("b", "p")),
            "no such user"
        );
        assert!(!stays(&rules("a", "p"), named(), &token("p")));
        let single = Authorization {
            user: Some("a".into()),
            password: Some("p".into()),
            ..Authorization::default()
        };
        assert!(stays(&rules("a", "p"), named(), &single));
        assert!(stays(&token("t"), shown("", "", "t"), &token("t")));
        assert!(!stays(&token("t"), shown("", "", "t"), &token("u")));
        assert!(!stays(&open, Connect::default(), &token("u")));
        assert!(stays(&guests, Connect::default(), &guests));
        assert!(!stays(&guests, Connect::default(), &rules("g", "p")));
    }
}
