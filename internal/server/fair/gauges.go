package fair

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/server/fair/queueing"
)

// gauges are the figures that are read when somebody asks for them.
type gauges struct{ *Fairness }

// gauge is one of them: of levels, or of schemas at levels.
type gauge[T any] struct {
	desc *prometheus.Desc
	of   func(T) float64
	kind prometheus.ValueType
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, append([]string{"priority_level"}, labels...), nil)
}

// seen is a level as it was when it was asked.
type seen struct {
	queueing.Limit
	queueing.Demand
	seats    int
	target   float64
	progress float64
}

func ofLevels() []gauge[seen] {
	g := func(name, help string, of func(seen) float64) gauge[seen] {
		return gauge[seen]{describe(name, help), of, prometheus.GaugeValue}
	}
	return []gauge[seen]{
		g("nominal_limit_seats", "Seats that a level has by its share.", func(s seen) float64 { return float64(s.Nominal) }),
		g("lower_limit_seats", "Seats that a level has at least.", func(s seen) float64 { return float64(s.Min) }),
		g("upper_limit_seats", "Seats that a level has at most.", func(s seen) float64 { return float64(s.Max) }),
		g("current_limit_seats", "Seats that a level has now.", func(s seen) float64 { return float64(s.seats) }),
		g("target_seats", "Seats that a level should have if there are enough.", func(s seen) float64 { return s.target }),
		g("demand_seats_high_watermark", "Most seats that a level could have used in the last period.", func(s seen) float64 { return s.High }),
		g("demand_seats_average", "Seats that a level could have used in the last period, on average.", func(s seen) float64 { return s.Average }),
		g("demand_seats_stdev", "Standard deviation of the seats that a level could have used in the last period.", func(s seen) float64 { return s.Deviation }),
		g("demand_seats_smoothed", "Seats that a level could have used, smoothed.", func(s seen) float64 { return s.Smoothed }),
		g("current_r", "Progress of a level's own clock, in seat-seconds by queue.", func(s seen) float64 { return s.progress }),
	}
}

func ofSchemas() []gauge[*figures] {
	g := func(name, help string, of func(*figures) int64) gauge[*figures] {
		return gauge[*figures]{describe(name, help, "flow_schema"), func(m *figures) float64 { return float64(of(m)) }, prometheus.GaugeValue}
	}
	return []gauge[*figures]{
		g("current_inqueue_requests", "Requests that wait in queues.", func(m *figures) int64 { return m.waiting.Load() }),
		g("current_inqueue_seats", "Seats that requests in queues wait for.", func(m *figures) int64 { return m.waitingSeats.Load() }),
		g("current_executing_requests", "Requests that are served, and watches that begin.", func(m *figures) int64 { return m.executing.Load() }),
		g("current_executing_seats", "Seats that are in use.", func(m *figures) int64 { return m.executingSeats.Load() }),
	}
}

func fairFraction() *prometheus.Desc {
	return prometheus.NewDesc(prefix+"seat_fair_frac", "Part of its target that a level gets that no limit binds.", nil, nil)
}

func blocked() *prometheus.Desc {
	return describe("request_dispatch_no_accommodation_total", "Times that the request whose turn it was found too few seats.")
}

// Describe implements prometheus.Collector.
func (g gauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range ofLevels() {
		to <- d.desc
	}
	for _, d := range ofSchemas() {
		to <- d.desc
	}
	to <- fairFraction()
	to <- blocked()
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(to chan<- prometheus.Metric) {
	g.current()
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, l := range g.levels {
		s := seen{Limit: l.limit, Demand: l.demand, target: l.target}
		l.mu.Lock()
		s.seats, s.progress = l.queue.Seats(), l.queue.Progress()
		n := l.queue.Blocked
		l.mu.Unlock()
		for _, d := range ofLevels() {
			to <- prometheus.MustNewConstMetric(d.desc, d.kind, d.of(s), name)
		}
		to <- prometheus.MustNewConstMetric(blocked(), prometheus.CounterValue, float64(n), name)
	}
	for p, m := range g.pairs {
		for _, d := range ofSchemas() {
			to <- prometheus.MustNewConstMetric(d.desc, d.kind, d.of(m), p.level, p.schema)
		}
	}
	to <- prometheus.MustNewConstMetric(fairFraction(), prometheus.GaugeValue, g.fraction)
}
