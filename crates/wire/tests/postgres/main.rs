//! The start of PostgreSQL connections: messages as the documentation has them (54.7 "Message Formats"), cut anywhere,
//! mutated, random.

mod captures;
mod hostile;
#[path = "../seeded/mod.rs"]
mod seeded;
mod startup;
mod watch;
