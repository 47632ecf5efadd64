//! Who may ask what: reading for whom the socket lets in, changes for root and the controller's own user.

use serde::Serialize;

use super::api::{Apply, MysqlCommand, Refusal, Request};

/// What answering a request does to the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    Read,
    Write,
}

/// The process at the other end of the socket, as the kernel tells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: Option<i32>,
}

impl Request {
    #[must_use]
    pub fn access(&self) -> Access {
        match self {
            Self::Status
            | Self::Snapshot { .. }
            | Self::Rules
            | Self::Sets
            | Self::SetElements { .. }
            | Self::Explain(_)
            | Self::ConfigShow
            | Self::Certificates
            | Self::Connections { .. }
            | Self::Mysql {
                command: MysqlCommand::Status | MysqlCommand::Switchover { dry_run: true, .. },
                ..
            }
            | Self::Reload {
                apply: Apply::DryRun,
            } => Access::Read,
            Self::Reload {
                apply: Apply::Now | Apply::OnTrial { .. },
            }
            | Self::Confirm
            | Self::SetAdd { .. }
            | Self::SetDelete { .. }
            | Self::SetFlush { .. }
            | Self::AlertTest { .. }
            | Self::TlsReload
            | Self::Upgrade
            | Self::Mysql { .. }
            | Self::BackendState { .. } => Access::Write,
        }
    }
}

impl Caller {
    /// # Errors
    /// [`Refusal::NotPermitted`], with the cure.
    pub fn may(&self, access: Access, own_uid: u32) -> Result<(), Refusal> {
        if access == Access::Read || self.uid == 0 || self.uid == own_uid {
            return Ok(());
        }
        Err(Refusal::NotPermitted {
            message: format!(
                "uid {} may ask and not change; try again as root (sudo)",
                self.uid
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32) -> Caller {
        Caller {
            uid,
            gid: uid,
            pid: None,
        }
    }

    #[test]
    fn everyone_whom_the_socket_lets_in_may_read() {
        assert!(caller(1_000).may(Access::Read, 990).is_ok());
    }

    #[test]
    fn root_and_the_controllers_user_may_change_and_nobody_else() {
        assert!(caller(0).may(Access::Write, 990).is_ok());
        assert!(caller(990).may(Access::Write, 990).is_ok());
        let refusal = caller(1_000)
            .may(Access::Write, 990)
            .expect_err("a member of the group");
        assert!(refusal.to_string().contains("root"), "{refusal}");
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let reload = |apply| Request::Reload { apply }.access();
        assert_eq!(reload(Apply::DryRun), Access::Read);
        assert_eq!(reload(Apply::Now), Access::Write);
    }
}
