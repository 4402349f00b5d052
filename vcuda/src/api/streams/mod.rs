//! What streams are asked to do: [`work`], alone or in a [`graph`], is [submitted](submit) and is done at once ([`run`]),
//! or stands in a [`plan`] until the [`queue`] comes to it, or is kept by a [`capture`].

pub mod capture;
pub mod copy;
pub mod event;
pub mod graph;
pub mod launch;
pub mod plan;
pub mod queue;
pub mod run;
mod staging;
pub mod submit;
pub mod touch;
pub mod work;
