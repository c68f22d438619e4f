//! What the server tells about itself over HTTP.

mod http;
mod process;
mod query;
mod text;
