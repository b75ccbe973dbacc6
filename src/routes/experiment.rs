//! Experiments over HTTP. The pattern's promises are in [`crate::patterns::experiment`].

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;
use serde_json::{Value, json};
use worker::Request;

use super::conditional::Conditions;
use super::extract::{self, Fields, Query, missing, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, AppStore, Context, Outcome, Route, page, route, turn};
use crate::etag::etag;
use crate::patterns::experiment::assign::{LAYER_SLOTS, MAX_VARIANTS, MAX_WEIGHT, Slots, Variant};
use crate::patterns::experiment::{
    Definition, Error, Events, Experiment, Experiments, METRIC_BYTES_MAX, Memory, Reason, Refused, Report, Status,
};

const READ: Access = Access::Read(&["experiments"]);
const WRITE: Access = Access::Write(&["experiments"]);

pub(super) const ROUTES: &[Route] = &[
    route!(GET "/v1/experiments", READ, list),
    route!(PUT "/v1/experiments/:name", WRITE, put),
    route!(GET "/v1/experiments/:name", READ, get),
    route!(DELETE "/v1/experiments/:name", WRITE, delete),
    route!(POST "/v1/experiments/:name/assignments", READ, assign),
    route!(POST "/v1/experiments/:name/events", WRITE, record),
    route!(GET "/v1/experiments/:name/results", READ, results),
];

const STATUSES: &[(&str, Status)] =
    &[("draft", Status::Draft), ("running", Status::Running), ("paused", Status::Paused), ("ended", Status::Ended)];
/// Experiments of one layer look at each other.
const TURN: &[&str] = &["experiments"];
const SALT_BYTES_MAX: usize = 256;
/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 256;
/// Largest value of an event, either way: sums of any number of them stay finite.
const VALUE_MAX: f64 = 1e15;

thread_local! {
    /// What this isolate remembers of experiments and events.
    static MEMORY: Memory = Memory::default();
}

fn experiments(context: &Context) -> Result<Experiments<AppStore>, Problem> {
    let app = &context.data;
    Ok(Experiments::new(app.store("CONFIG")?, &app.caller()?.tenant, MEMORY.with(Clone::clone)))
}

fn events(context: &Context) -> Result<Events<AppStore>, Problem> {
    let app = &context.data;
    Ok(Events::new(app.store("COUNTERS")?, &app.caller()?.tenant, MEMORY.with(Clone::clone)))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Refused(Refused::Invalid { field, why }) => Self::invalid(field, format!("Refused: {why}.")),
            Error::Refused(Refused::WouldMove(share)) => {
                let percent = share * 100.0;
                let detail = format!(
                    "The edit would give a share of {share:.6} of all users ({percent:.4} %) another variant than they \
                     were served. Send `?allowReassign=1` to do it all the same."
                );
                Self::new(409, "would-reassign", "The edit would move users of a running experiment", detail)
                    .at("variants")
                    .with("share", share)
                    .consistency(Consistency::Eventual)
            }
            Error::Refused(Refused::Overlaps(rival)) => {
                let detail = format!("The experiment `{rival}` has some of these slots and has not ended.");
                Self::new(409, "slots-taken", "Another experiment has slots of this layer", detail)
                    .at("layer")
                    .with("experiment", rival)
                    .consistency(Consistency::Eventual)
            }
        }
    }
}

fn no_such() -> Problem {
    Problem::absent("There is no such experiment.")
}

/// The experiment as JSON, and its tag.
fn rendered(experiment: &Experiment) -> (String, Vec<u8>) {
    // What is rendered has text keys and integers only, which is all that could fail.
    let body = serde_json::to_vec(&experiment.view()).unwrap_or_default();
    (etag(&body), body)
}

/// The experiment to place users with.
async fn current(context: &Context) -> Result<Rc<Experiment>, Problem> {
    let name = path_id(context, "name")?;
    experiments(context)?.current(&name, context.data.now()).await?.ok_or_else(no_such)
}

async fn put(request: Request, context: Context) -> Outcome {
    let name = path_id(&context, "name")?;
    let app = &context.data;
    let allow_reassign = Query::of(app)?.flag("allowReassign")?;
    let definition = definition(extract::object(&request, extract::JSON_BYTES_MAX).await?)?;
    let _turn = turn::take(app, TURN).await?;
    let experiments = experiments(&context)?;
    let base = experiments.newest(&name, app.now()).await?;
    let before = base.as_deref().map(|base| rendered(base).0);
    Conditions::of(&request).check_write(before.as_deref())?;
    let put = experiments.put(base.as_ref(), &name, definition, allow_reassign, app.now(), &app.random).await?;
    let (tag, body) = rendered(&put);
    let reply = Reply::bytes(if base.is_some() { 200 } else { 201 }, "application/json", body);
    Ok(reply.header("ETag", tag).consistency(Consistency::Eventual))
}

async fn get(request: Request, context: Context) -> Outcome {
    let name = path_id(&context, "name")?;
    let found = experiments(&context)?.newest(&name, context.data.now()).await?.ok_or_else(no_such)?;
    let (tag, body) = rendered(&found);
    let reply = Reply::bytes(200, "application/json", body);
    Ok(Conditions::of(&request).read(&tag, reply)?.consistency(Consistency::Eventual))
}

async fn delete(request: Request, context: Context) -> Outcome {
    let name = path_id(&context, "name")?;
    let _turn = turn::take(&context.data, TURN).await?;
    let experiments = experiments(&context)?;
    let found = experiments.newest(&name, context.data.now()).await?.ok_or_else(no_such)?;
    Conditions::of(&request).check_write(Some(&rendered(&found).0))?;
    experiments.delete(&name).await?;
    Ok(Reply::empty(204).consistency(Consistency::Eventual))
}

async fn list(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let scope = page::scope(&context, &["experiments"])?;
    let request = page::request(app, &Query::of(app)?, &scope)?;
    let listed = experiments(&context)?.list(&request).await?;
    if listed.unreadable > 0 {
        worker::console_error!("{} experiment records are unreadable; they were kept", listed.unreadable);
    }
    let views = listed.experiments.iter().map(Experiment::view).collect();
    let list = page::list(app, &scope, views, listed.cursor.as_deref());
    Ok(Reply::json(200, &list).consistency(Consistency::Eventual))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assignment<'a> {
    variant: &'a str,
    reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky_token: Option<String>,
}

async fn assign(request: Request, context: Context) -> Outcome {
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let user = fields.id("userId")?;
    let token = fields.text("stickyToken", TOKEN_BYTES_MAX)?;
    fields.finish()?;
    let experiment = current(&context).await?;
    let placement = experiment.place(&user, token.as_deref());
    let sticky_token = experiment.sticky_token(&user, &placement);
    let body = Assignment { variant: placement.variant, reason: placement.reason, sticky_token };
    Ok(Reply::json(200, &body).consistency(Consistency::Eventual))
}

async fn record(request: Request, context: Context) -> Outcome {
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let user = fields.id("userId")?;
    let metric = fields.text("metric", METRIC_BYTES_MAX)?.ok_or_else(|| missing("metric"))?;
    extract::check_id("metric", &metric)?;
    let value = value(&mut fields)?;
    let token = fields.text("stickyToken", TOKEN_BYTES_MAX)?;
    fields.finish()?;
    let experiment = current(&context).await?;
    let placement = experiment.place(&user, token.as_deref());
    let counted = events(&context)?.record(&experiment, &placement, &user, &metric, value).await?;
    let body = json!({ "variant": placement.variant, "counted": counted });
    Ok(Reply::json(202, &body).consistency(Consistency::Eventual))
}

async fn results(_: Request, context: Context) -> Outcome {
    let experiment = current(&context).await?;
    let tally = events(&context)?.tally(&experiment).await?;
    if tally.unreadable > 0 {
        worker::console_error!("{} events of one experiment are unreadable; they were kept", tally.unreadable);
    }
    Ok(Reply::json(200, &Report::of(&experiment, &tally)).consistency(Consistency::Eventual))
}

fn definition(mut fields: Fields) -> Result<Definition, Problem> {
    let definition = Definition {
        variants: variants(fields.take("variants").ok_or_else(|| missing("variants"))?)?,
        status: fields.one_of("status", STATUSES)?.ok_or_else(|| missing("status"))?,
        salt: fields.text("salt", SALT_BYTES_MAX)?,
        sticky: fields.boolean("sticky")?.unwrap_or(false),
        overrides: overrides(fields.take("overrides"))?,
        slots: slots(fields.take("layer"))?,
    };
    fields.finish()?;
    Ok(definition)
}

fn variants(value: Value) -> Result<Vec<Variant>, Problem> {
    let Value::Array(items) = value else { return Err(Problem::invalid("variants", "Must be an array of objects.")) };
    if items.is_empty() || items.len() > MAX_VARIANTS {
        return Err(Problem::invalid("variants", format!("Must have 1 to {MAX_VARIANTS} items.")));
    }
    let variant = |(index, item)| {
        let place = format!("variants[{index}]");
        let at = |field: &str| format!("{place}.{field}");
        let mut fields = Fields::of(item).map_err(|_| Problem::invalid(&place, "Must be an object."))?;
        let name = fields.id("name").map_err(|problem| problem.at(at("name")))?;
        let weight = fields.count("weight", 0..=MAX_WEIGHT).map_err(|problem| problem.at(at("weight")))?;
        let weight = weight.ok_or_else(|| missing(&at("weight")))?;
        fields.finish_at(&place)?;
        Ok(Variant { name, weight })
    };
    items.into_iter().enumerate().map(variant).collect()
}

fn overrides(value: Option<Value>) -> Result<BTreeMap<String, String>, Problem> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let Value::Object(pairs) = value else {
        return Err(Problem::invalid("overrides", "Must be an object of user ids and variants."));
    };
    let pair = |(user, variant)| match variant {
        Value::String(variant) => Ok((user, variant)),
        _ => Err(Problem::invalid(format!("overrides.{user}"), "Must be a string.")),
    };
    pairs.into_iter().map(pair).collect()
}

fn slots(value: Option<Value>) -> Result<Option<Slots>, Problem> {
    let Some(value) = value else { return Ok(None) };
    let at = |field: &str| format!("layer.{field}");
    let mut fields = Fields::of(value).map_err(|_| Problem::invalid("layer", "Must be an object."))?;
    let name = fields.id("name").map_err(|problem| problem.at(at("name")))?;
    let mut slot = |field: &str| {
        let slot = fields.count(field, 0..=LAYER_SLOTS).map_err(|problem| problem.at(at(field)))?;
        slot.ok_or_else(|| missing(&at(field)))
    };
    let (start, end) = (slot("start")?, slot("end")?);
    fields.finish_at("layer")?;
    Slots::new(&name, start, end).map(Some).map_err(|error| Problem::invalid("layer", format!("Refused: {error}.")))
}

fn value(fields: &mut Fields) -> Result<Option<f64>, Problem> {
    let Some(value) = fields.take("value") else { return Ok(None) };
    let number = value.as_f64().filter(|number| number.abs() <= VALUE_MAX);
    number.map(Some).ok_or_else(|| Problem::invalid("value", "Must be a number from -1e15 to 1e15."))
}
