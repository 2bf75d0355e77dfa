//! What requests are made of: tokens that are kept, clients with keys, API keys, and what good
//! requests leave behind for hostile ones.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis::ApiKey;
use portcullis::testing::{DpopClient, TestIssuer, TestStatusList};
use rand::Rng as _;
use rand::rngs::SmallRng;

use crate::Failure;
use crate::world::{MAIN, PLAIN, World};

/// Tenants in constant use. Fewer than the server caches, so that it never evicts them.
pub(crate) const IN_USE: usize = 200;
/// Tokens are used for this long; they are valid for 5 minutes.
const USED_FOR: Duration = Duration::from_secs(240);
const OPAQUE: usize = 50;
const CLIENTS: usize = 20;
pub(crate) const API_KEYS: usize = 50;
/// Statuses up to this are valid; from here on, tokens are revoked.
pub(crate) const VALID_STATUSES: u32 = 500;

pub(crate) struct Material {
    pub(crate) world: Arc<World>,
    /// Tokens by issuer, with the number of rotations and the time when they were made.
    tokens: HashMap<(usize, &'static str), (String, u64, Instant)>,
    opaque: Vec<(String, Instant)>,
    pub(crate) clients: Vec<DpopClient>,
    bound: Vec<(String, u64, Instant)>,
    pub(crate) api_keys: Vec<String>,
    /// An issuer that the server does not trust.
    pub(crate) attacker: TestIssuer,
    pub(crate) list: TestStatusList,
    pub(crate) left: Arc<Left>,
    /// The next of all tenants.
    next: usize,
}

/// What was left behind. Each holds the last few.
#[derive(Default)]
pub(crate) struct Left {
    /// Tokens with the proof of a request that was accepted.
    pub(crate) used: Bin<(String, String)>,
    /// Tokens that were revoked at the API.
    pub(crate) revoked: Bin<String>,
    /// Opaque tokens that were revoked at their issuer, once no cached answer says otherwise.
    pub(crate) revoked_opaque: Bin<String>,
    /// Tokens whose key was withdrawn, with their issuer, once the server has fetched the keys
    /// again.
    pub(crate) withdrawn: Bin<(usize, String)>,
}

/// Each with the time when its token was made: one that has expired shows nothing.
pub(crate) struct Bin<T>(Mutex<VecDeque<(T, Instant)>>);

impl<T> Default for Bin<T> {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

impl<T: Clone> Bin<T> {
    pub(crate) fn put(&self, one: T, made: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == 200 {
            all.pop_front();
        }
        all.push_back((one, made));
    }

    pub(crate) fn any(&self, random: &mut SmallRng) -> Option<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, made)| made.elapsed() < USED_FOR);
        if all.is_empty() {
            return None;
        }
        all.get(random.gen_range(0..all.len())).map(|(one, _)| one.clone())
    }
}

impl Material {
    /// Returns the material, and the hashes of the API keys.
    pub(crate) fn new(world: Arc<World>) -> Result<(Self, Vec<String>), Failure> {
        let (mut api_keys, mut hashes) = (Vec::new(), Vec::new());
        for _ in 0..API_KEYS {
            let key = ApiKey::generate("soak_live")?;
            hashes.push(key.hash().to_string());
            api_keys.push(key.expose_key().to_owned());
        }
        let main = world.issuer(MAIN);
        for index in VALID_STATUSES..1000 {
            main.set_status(index, 1);
        }
        let clients = (0..CLIENTS).map(|_| DpopClient::new()).collect::<Result<_, _>>()?;
        let material = Self {
            list: main.status_list(),
            attacker: TestIssuer::offline("https://attacker.example/")?,
            tokens: HashMap::new(),
            opaque: Vec::new(),
            clients,
            bound: Vec::new(),
            api_keys,
            left: Arc::default(),
            next: IN_USE,
            world,
        };
        Ok((material, hashes))
    }

    /// A token of this issuer that may have been sent before.
    pub(crate) fn cached(&mut self, issuer: usize) -> String {
        let world = Arc::clone(&self.world);
        self.kept(issuer, "", || world.token(issuer).claim("jti", "cached").build())
    }

    /// A token for the MCP server. The tenants' tools have no further rules.
    pub(crate) fn mcp(&mut self) -> String {
        let world = Arc::clone(&self.world);
        self.kept(PLAIN, "mcp", || world.token(PLAIN).claim("jti", "mcp").build())
    }

    fn kept(&mut self, issuer: usize, what: &'static str, make: impl Fn() -> String) -> String {
        let rotations = self.world.rotations(issuer);
        let new = || (make(), rotations, Instant::now());
        let kept = self.tokens.entry((issuer, what)).or_insert_with(new);
        if kept.1 != rotations || kept.2.elapsed() > USED_FOR {
            *kept = new();
        }
        kept.0.clone()
    }

    /// The next tenant of all that are not in constant use.
    pub(crate) fn next_tenant(&mut self) -> usize {
        let tenant = self.next;
        self.next += 1;
        if self.next == crate::world::TENANTS {
            self.next = IN_USE;
        }
        tenant
    }

    /// An opaque token that may have been sent before.
    pub(crate) fn opaque(&mut self, random: &mut SmallRng) -> String {
        if self.opaque.len() == OPAQUE {
            let chosen = random.gen_range(0..OPAQUE);
            let (token, made) = self.opaque.swap_remove(chosen);
            if made.elapsed() < USED_FOR {
                self.opaque.push((token.clone(), made));
                return token;
            }
        }
        let token = self.new_opaque();
        self.opaque.push((token.clone(), Instant::now()));
        token
    }

    pub(crate) fn new_opaque(&self) -> String {
        self.world.issuer(MAIN).opaque_token(self.world.token(MAIN))
    }

    /// A client, and a token that is bound to its key.
    pub(crate) fn bound(&mut self, random: &mut SmallRng) -> (usize, String) {
        let client = random.gen_range(0..self.clients.len());
        let rotations = self.world.rotations(MAIN);
        let new = |client: &DpopClient| {
            let token = self.world.token(MAIN).bound_to(client).build();
            (token, rotations, Instant::now())
        };
        if self.bound.is_empty() {
            self.bound = self.clients.iter().map(new).collect();
        }
        let (token, at, made) = &self.bound[client];
        if *at != rotations || made.elapsed() > USED_FOR {
            self.bound[client] = new(&self.clients[client]);
            return (client, self.bound[client].0.clone());
        }
        (client, token.clone())
    }
}
