package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Sizes of a storm. They fit two cores under the race detector.
const (
	replicas     = 4
	clients      = 64
	asks         = 400 // at most, of each client; the storm's end ends them
	stormFor     = 5 * time.Second
	logHeartbeat = 100 * time.Millisecond
	logSilence   = 900 * time.Millisecond
)

// plan is everything that a seed decides.
type plan struct {
	seed    uint64
	teams   []account
	keys    []account
	clients [][]ask
	actors  map[string][]act // by whom it happens to
}

// account is a key or a team with its limits; 0 is none.
type account struct {
	name, team string // team is empty for a team
	budget     int64  // nano-dollars, hard
	parallel   int64
}

func (a account) limited() bool { return a.budget > 0 || a.parallel > 0 }

// ask is one request, retries included.
type ask struct {
	key       int
	stream    bool
	model     string
	maxTokens int
	cached    bool
	script    string
	wait      time.Duration // before it is sent
	// abortAfter is the number of deltas after which the client goes; 0: never.
	abortAfter int
	// abortIn is how long the client waits at all; 0: for ever.
	abortIn time.Duration
}

// act is one thing that happens, `wait` after the one before and for so long.
type act struct {
	wait, last time.Duration
	what       string
}

func (a act) String() string {
	return fmt.Sprintf("+%dms %s %dms", a.wait.Milliseconds(), a.what, a.last.Milliseconds())
}

func newPlan(seed uint64) plan {
	p := plan{seed: seed, actors: map[string][]act{}}
	p.limit(p.rand("limits"))
	for n := range clients {
		r := p.rand(fmt.Sprintf("client %d", n))
		var list []ask
		for range asks {
			list = append(list, p.ask(r, n))
		}
		p.clients = append(p.clients, list)
	}
	for n := range replicas {
		p.act(fmt.Sprintf("proxysvc-%d", n), 800, 3200, map[string]int{kill: 5, freeze: 4, drain: 1})
		p.act(fmt.Sprintf("postgres of proxysvc-%d", n), 800, 3500, links)
	}
	p.act("postgres", 1500, 4000, map[string]int{fast: 2, immediate: 3, crash: 3})
	p.act("anthropic", 800, 3000, links)
	p.act("autumn", 600, 2500, links)
	p.act("postgres of keysvc", 700, 2500, links)
	p.act("postgres of billingsvc", 500, 1500, links)
	for _, name := range []string{"keysvc", "billingsvc", "outboxsvc"} {
		p.act(name, 1500, 6000, map[string]int{kill: 4, freeze: 1, drain: 1})
	}
	return p
}

// rand is a source of its own for each purpose, so that one does not shift
// another.
func (p *plan) rand(purpose string) *rand.Rand {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range []byte(purpose) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(p.seed, h))
}

// limit draws teams and keys: a tight team, a roomy one, one without limits, and one whose
// budgets are far from used up, so that they are sliced; keys that are spent soon, keys that
// may do two things at once, free ones.
func (p *plan) limit(r *rand.Rand) {
	usd := func(low, high int64) int64 { return low + r.Int64N(high-low) + 1 } // no round sums
	const cent = 10_000_000
	p.teams = []account{
		{name: "tight", budget: usd(3*cent, 8*cent), parallel: 4 + r.Int64N(6)},
		{name: "roomy", budget: usd(10*cent, 40*cent)},
		{name: "free"},
		{name: "rich", budget: usd(100*cent, 400*cent)},
	}
	for n := range 12 {
		k := account{name: fmt.Sprintf("key-%d", n), team: p.teams[n%3].name}
		switch n % 4 {
		case 0:
			k.budget = usd(cent/2, 2*cent)
		case 1:
			k.budget, k.parallel = usd(cent, 4*cent), 1+r.Int64N(4)
		case 2:
			k.parallel = 1 + r.Int64N(5)
		}
		p.keys = append(p.keys, k)
	}
	for n := range 4 {
		p.keys = append(p.keys, account{name: fmt.Sprintf("rich-key-%d", n), team: "rich", budget: usd(30*cent, 90*cent)})
	}
}

// models and how often each is asked; two have the same price in no column.
var models = []string{"claude-haiku-4-5", "claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-5-5"}

func (p *plan) ask(r *rand.Rand, client int) ask {
	a := ask{
		key: client % len(p.keys), stream: r.IntN(5) > 0, model: models[r.IntN(len(models))],
		maxTokens: 20 + r.IntN(280), cached: r.IntN(3) == 0, wait: ms(r, 0, 40),
	}
	if r.IntN(4) == 0 {
		a.key = r.IntN(len(p.keys))
	}
	tokens := 8 + r.IntN(240)
	script := []string{fmt.Sprintf("output_tokens=%d", tokens), fmt.Sprintf("delay_ms=%d", 1+r.IntN(20))}
	after := 1 + r.IntN(tokens/8+1)
	switch n := r.IntN(100); {
	case n < 4:
		script = append(script, fmt.Sprintf("error=%d", []int{529, 500, 429, 400}[r.IntN(4)]))
	case n < 8:
		script = append(script, fmt.Sprintf("cut=after:%d", after))
	case n < 11:
		script = append(script, fmt.Sprintf("stream_error=after:%d", after))
	case n < 13:
		script = append(script, "close=before_headers")
	case n < 18:
		script = append(script, fmt.Sprintf("stall_pings=after:%d;stall_pings_ms=%d", after, 100+r.IntN(500)))
	case n < 22:
		script = append(script, fmt.Sprintf("first_byte_ms=%d", 50+r.IntN(500)))
	case n < 26:
		script = append(script, fmt.Sprintf("trickle=%d", 1+r.IntN(30)))
	}
	if r.IntN(25) == 0 { // an answer as long as it may be, cut near its end
		a.model, a.maxTokens = models[0], 2400
		script = []string{"output_tokens=2400;delay_ms=0", fmt.Sprintf("cut=after:%d", 250+r.IntN(50))}
	}
	a.script = strings.Join(script, ";")
	switch r.IntN(6) {
	case 0:
		a.abortAfter = after
	case 1:
		a.abortIn = ms(r, 5, 700)
	}
	return a
}

// What happens to processes and links.
const (
	kill   = "kill -9" // and is away for a while
	freeze = "freeze"  // SIGSTOP, for longer than a log may be silent
	drain  = "drain"   // SIGTERM
	cut    = "cut"
	reset  = "reset"
	hole   = "hole"
	lag    = "lag"
	refuse = "refuse"
	lose   = "lose an answer"
)

var links = map[string]int{cut: 3, reset: 2, hole: 3, lag: 3, refuse: 2, lose: 4}

// act draws what happens to somebody: pauses between low and high milliseconds,
// things by their weights.
func (p *plan) act(whom string, low, high int, weights map[string]int) {
	r := p.rand(whom)
	var list []act
	for at := time.Duration(0); ; {
		a := act{wait: ms(r, low/2, high), what: choose(r, weights)}
		switch a.what {
		case freeze:
			a.last = logSilence + ms(r, 100, 1200)
		case kill:
			a.last = ms(r, 0, 600)
		case fast, immediate, crash:
			a.last = ms(r, 0, 1500) // sometimes longer than a log may be silent
		case lag:
			a.last = ms(r, 100, 800)
		case hole, refuse, lose:
			a.last = ms(r, 50, 900)
		}
		if at += a.wait; at > stormFor {
			break
		}
		at += a.last
		list = append(list, a)
	}
	p.actors[whom] = list
}

// choose draws by weight, in the order of the names: maps have none.
func choose(r *rand.Rand, weights map[string]int) string {
	sum := 0
	for _, name := range everything {
		sum += weights[name]
	}
	n := r.IntN(sum)
	for _, name := range everything {
		if n -= weights[name]; n < 0 {
			return name
		}
	}
	return ""
}

var everything = []string{kill, freeze, drain, cut, reset, hole, lag, refuse, lose, fast, immediate, crash}

func ms(r *rand.Rand, low, high int) time.Duration {
	return time.Duration(low+r.IntN(high-low)) * time.Millisecond
}

// String lists what happens to whom, for a failing test to show.
func (p plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\nteams %+v\nkeys %+v\n", p.seed, p.teams, p.keys)
	for whom, list := range p.actors {
		fmt.Fprintf(&b, "%s: %v\n", whom, list)
	}
	return b.String()
}
