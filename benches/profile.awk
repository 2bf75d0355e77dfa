# The functions of a request, from two profiles by callgrind: that of the unprotected handler, whose
# instructions are subtracted, and that of the request.
#
# awk -f profile.awk -v count=REQUESTS -v top=ROWS UNPROTECTED PROFILE
#
# The signature is left out: the table would show little else. A function of C, such as `malloc`, is
# one row with everything that it calls. Inlined code counts for the function around it.

# The name behind "(id) name", which callgrind writes only once.
function named(field,   id) {
  id = field
  sub(/\).*/, ")", id)
  if (field != id) {
    sub(/^\([0-9]+\) /, "", field)
    # Hashes of symbols.
    sub(/::h[0-9a-f]+$/, "", field)
    sub(/::h[0-9a-f]+'/, "'", field)
    names[id] = field
  }
  return names[id]
}

# Whether a function is of C, or one of its Rust bindings.
function is_foreign(name) { return name !~ /::/ || name ~ /aws_lc/ }

function short(name) {
  # A recursive call.
  sub(/'[0-9]+$/, "", name)
  sub(/^aws_lc_[0-9_]+_/, "", name)
  return name
}

FNR == 1 {
  sign = profile++ ? 1 : -1
  split("", names)
}
/^fn=/ { caller = named(substr($0, 4)); next }
/^cfn=/ { callee = named(substr($0, 5)); next }
/^calls=/ { is_call = 1; next }
/^[0-9+*-]/ {
  cost = sign * $NF / count
  if (!is_call) {
    if (!is_foreign(caller)) own[short(caller)] += cost
    inclusive[caller] += cost
    next
  }
  is_call = 0
  if (callee == caller) next
  inclusive[caller] += cost
  calls[caller, callee]
  if (caller ~ SIGNATURE) signature += cost
  else if (is_foreign(callee) && !is_foreign(caller)) {
    own[short(callee)] += cost
    of_foreign[short(callee)]
  }
}
BEGIN { SIGNATURE = "SignatureVerifier::verifies" }

END {
  # The functions that call the signature, directly or not.
  do {
    has_more = 0
    for (edge in calls) {
      split(edge, ends, SUBSEP)
      if ((ends[2] ~ SIGNATURE || ends[2] in around) && !(ends[1] in around)) {
        around[ends[1]]
        has_more = 1
      }
    }
  } while (has_more)
  for (name in own) total += own[name]
  printf "%.0f instructions, without %.0f of the signature and those of the unprotected handler\n", total, signature
  print "  exclusive          inclusive"
  rest = total
  for (row = 1; row <= top; row++) {
    best = ""
    for (name in own) if (best == "" || own[name] > own[best]) best = name
    if (best == "" || own[best] < 1) break
    rest -= own[best]
    all = best in of_foreign ? own[best] : inclusive[best]
    if (best in around && all > signature) all -= signature
    printf "  %6.0f %5.1f %%  %5.1f %%  %s\n", own[best], 100 * own[best] / total, 100 * all / total, substr(best, 1, 110)
    delete own[best]
  }
  printf "  %6.0f %5.1f %%           all others\n", rest, 100 * rest / total
}
