package fair

import (
	"cmp"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"github.com/knarr-io/knarr/internal/server/fair/queueing"
	"github.com/knarr-io/knarr/internal/store"
)

// arrangement is what the objects of a moment say. It never changes.
type arrangement struct {
	schemaRevision, levelRevision int64             // of the tables
	levels                        map[string]string // UIDs of those to which schemas may refer
	schemas                       []*schema
	rest                          *schema // the one that matches everybody
}

// schema is a FlowSchema that refers to a level.
type schema struct {
	name          string
	uid, levelUID []string // as values of headers, which nobody changes
	precedence    int32
	rules         []flowcontrolv1.PolicyRulesWithSubjects
	distinguisher flowcontrolv1.FlowDistinguisherMethodType
	salt          uint64 // parts its flows from other schemas'
	level         *level
	figures       *figures
}

// level is a priority level that is in use. One that is deleted stays until nobody waits in it.
type level struct {
	name   string
	exempt bool
	width  atomic.Int64 // the widest request

	// Fairness.mu guards these.
	share  queueing.Share
	limit  queueing.Limit
	demand queueing.Demand
	target float64

	mu       sync.Mutex
	queue    *queueing.Level
	refusals refusals
}

// current returns the arrangement of now, and lets levels lend and borrow when it is time.
func (f *Fairness) current() *arrangement {
	a := f.arranged.Load()
	if schemas, levels := f.revisions(); a.schemaRevision != schemas || a.levelRevision != levels {
		return f.arrange()
	}
	if int64(f.now()) >= f.adjustAt.Load() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if int64(f.now()) >= f.adjustAt.Load() {
			f.adjust()
		}
	}
	return a
}

func (f *Fairness) revisions() (schemas, levels int64) {
	if f.cfg.Schemas == nil || f.cfg.Levels == nil {
		return 0, 0
	}
	return f.cfg.Schemas.Changed(), f.cfg.Levels.Changed()
}

// arrange reads the objects.
func (f *Fairness) arrange() *arrangement {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &arrangement{}
	a.schemaRevision, a.levelRevision = f.revisions()
	if old := f.arranged.Load(); old != nil && old.schemaRevision == a.schemaRevision && old.levelRevision == a.levelRevision {
		return old
	}
	a.levels = f.arrangeLevels(objects[*flowcontrolv1.PriorityLevelConfiguration](f.cfg.Levels))
	a.schemas = f.arrangeSchemas(objects[*flowcontrolv1.FlowSchema](f.cfg.Schemas), a.levels)
	a.rest = a.schemas[slices.IndexFunc(a.schemas, func(s *schema) bool { return s.name == flowcontrolv1.FlowSchemaNameCatchAll })]
	for p, m := range f.pairs {
		if m.executing.Load() == 0 && m.waiting.Load() == 0 && !slices.ContainsFunc(a.schemas, func(s *schema) bool { return s.figures == m }) {
			delete(f.pairs, p)
			f.metrics.forget(p)
		}
	}
	f.adjust()
	f.arranged.Store(a)
	return a
}

// objects are those of a table.
func objects[T any](t *store.Table) []T {
	var out []T
	if t != nil {
		t.Snapshot().Ascend("", "", func(r *store.Revision) bool {
			out = append(out, any(r.Object).(T))
			return true
		})
	}
	return out
}

// arrangeLevels makes the levels those of all, the mandatory ones and those in which somebody still waits. It returns the UIDs of those
// to which schemas may refer.
func (f *Fairness) arrangeLevels(all []*flowcontrolv1.PriorityLevelConfiguration) map[string]string {
	for _, m := range bootstrap.MandatoryPriorityLevelConfigurations {
		if !slices.ContainsFunc(all, func(l *flowcontrolv1.PriorityLevelConfiguration) bool { return l.Name == m.Name }) {
			all = append(all, m)
		}
	}
	uids := map[string]string{}
	for _, object := range all {
		share, config, ok := read(object)
		if !ok {
			continue
		}
		uids[object.Name] = string(object.UID)
		l := f.levels[object.Name]
		if l == nil {
			l = &level{name: object.Name, exempt: config.Exempt, queue: queueing.NewLevel(config, 0, f.now())}
			f.levels[object.Name] = l
		}
		l.share = share
		l.mu.Lock()
		l.queue.Configure(config)
		l.mu.Unlock()
	}
	maps.DeleteFunc(f.levels, func(name string, l *level) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, wanted := uids[name]
		return !wanted && l.queue.Idle()
	})
	f.limit()
	return uids
}

// read takes a level's object apart. ok is false for one that the API would not have accepted.
func read(l *flowcontrolv1.PriorityLevelConfiguration) (share queueing.Share, config queueing.Config, ok bool) {
	value := func(p *int32) int {
		if p == nil {
			return 0
		}
		return int(*p)
	}
	exempt := l.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt
	switch {
	case exempt && l.Spec.Exempt != nil:
		e := l.Spec.Exempt
		return queueing.Share{Exempt: true, Shares: value(e.NominalConcurrencyShares), LendablePercent: value(e.LendablePercent)}, queueing.Config{Exempt: true}, true
	case exempt || l.Spec.Limited == nil:
		return queueing.Share{Exempt: exempt}, queueing.Config{Exempt: exempt}, exempt
	}
	limited := l.Spec.Limited
	share = queueing.Share{Shares: value(limited.NominalConcurrencyShares), LendablePercent: value(limited.LendablePercent)}
	if p := limited.BorrowingLimitPercent; p != nil {
		borrows := int(*p)
		share.BorrowingPercent = &borrows
	}
	if q := limited.LimitResponse.Queuing; q != nil {
		config = queueing.Config{Queues: int(q.Queues), Hand: int(q.HandSize), Length: int(q.QueueLengthLimit)}
	}
	return share, config, true
}

// limit divides the server's seats between the levels.
func (f *Fairness) limit() {
	all := slices.Collect(maps.Values(f.levels))
	shares := make([]queueing.Share, len(all))
	for i, l := range all {
		shares[i] = l.share
	}
	for i, limit := range queueing.Limits(f.cfg.Seats, shares) {
		l := all[i]
		l.limit = limit
		l.mu.Lock()
		l.width.Store(int64(widest(limit.Nominal, l.queue.Config())))
		l.mu.Unlock()
	}
}

// widest is how wide a request of a level may be: so that a request does not take all that a level has, and a flow's hand of queues fits
// into it, as kube-apiserver bounds it.
func widest(nominal int, c queueing.Config) int {
	if c.Queues == 0 {
		return listMost
	}
	return int(max(1, min(math.Ceil(0.15*float64(nominal)), float64(nominal/max(c.Hand, 1)))))
}

// arrangeSchemas returns the schemas that refer to levels, in the order in which they are asked.
func (f *Fairness) arrangeSchemas(all []*flowcontrolv1.FlowSchema, uids map[string]string) []*schema {
	for _, m := range bootstrap.MandatoryFlowSchemas {
		if !slices.ContainsFunc(all, func(s *flowcontrolv1.FlowSchema) bool { return s.Name == m.Name }) {
			all = append(all, m)
		}
	}
	var out []*schema
	for _, object := range all {
		to := object.Spec.PriorityLevelConfiguration.Name
		uid, ok := uids[to]
		if !ok {
			continue // it dangles
		}
		s := &schema{
			name: object.Name, uid: header(string(object.UID)), levelUID: header(uid), precedence: object.Spec.MatchingPrecedence, rules: object.Spec.Rules,
			salt: maphash.String(f.seed, object.Name), level: f.levels[to], figures: f.figuresOf(to, object.Name),
		}
		if d := object.Spec.DistinguisherMethod; d != nil {
			s.distinguisher = d.Type
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *schema) int {
		return cmp.Or(cmp.Compare(a.precedence, b.precedence), cmp.Compare(a.name, b.name))
	})
	return out
}

func header(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// adjust lets levels lend and borrow by what they could have used.
func (f *Fairness) adjust() {
	now := f.now()
	f.adjustAt.Store(int64(now + adjustEvery))
	all := slices.Collect(maps.Values(f.levels))
	parts := make([]queueing.Part, len(all))
	for i, l := range all {
		l.mu.Lock()
		l.demand = l.queue.Demand(l.demand, now)
		l.mu.Unlock()
		parts[i] = queueing.Part{Exempt: l.exempt, Limit: l.limit, Demand: l.demand}
		l.target = parts[i].Target()
	}
	seats, fraction := queueing.Allocate(parts)
	f.fraction = fraction
	for i, l := range all {
		l.mu.Lock()
		grant(l.queue.SetSeats(seats[i], now))
		l.mu.Unlock()
	}
}
