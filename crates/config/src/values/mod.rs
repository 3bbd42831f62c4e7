//! Texts of single values -> types. Pure: no places, no keys, no environment.
//!
//! Every function here gets the text of one scalar and returns the value or a [`crate::problem::Fault`] whose message
//! completes a sentence that begins with the key (`idle_timeout` + `"5" has no unit`).

pub(crate) mod address;
pub(crate) mod duration;
pub(crate) mod escape;
pub(crate) mod http;
pub(crate) mod name;
pub(crate) mod network;
pub(crate) mod number;
pub(crate) mod path;
pub(crate) mod server_name;
pub(crate) mod size;
pub(crate) mod variables;
pub(crate) mod word;
