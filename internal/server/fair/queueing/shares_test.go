package queueing

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestLimits: the standard levels' parts of 600 seats, as kube-apiserver divides them.
func TestLimits(t *testing.T) {
	got := Limits(600, []Share{
		{Exempt: true}, {Shares: 5}, {Shares: 30, LendablePercent: 33}, {Shares: 40, LendablePercent: 25}, {Shares: 10},
		{Shares: 40, LendablePercent: 50}, {Shares: 100, LendablePercent: 90}, {Shares: 20, LendablePercent: 50},
	})
	want := []Limit{{0, 0, 600}, {13, 13, 613}, {74, 50, 674}, {98, 73, 698}, {25, 25, 625}, {98, 49, 698}, {245, 24, 845}, {49, 24, 649}}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("level %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	twenty := 20
	if got := Limits(100, []Share{{Shares: 1, BorrowingPercent: &twenty}, {Shares: 1}}); got[0] != (Limit{50, 50, 60}) {
		t.Errorf("borrowing is bounded: %+v", got[0])
	}
}

// TestBorrowing: a level that wants more gets what others lend, and they get it back when they want it.
func TestBorrowing(t *testing.T) {
	lender := Part{Limit: Limit{Nominal: 50, Min: 10, Max: 650}}
	borrower := Part{Limit: Limit{Nominal: 50, Min: 50, Max: 650}}
	borrower.Demand = Demand{High: 500, Smoothed: 400}
	seats, _ := Allocate([]Part{lender, borrower})
	if seats[0] != 10 || seats[1] != 90 {
		t.Errorf("lent: %v", seats)
	}
	lender.Demand = Demand{High: 60, Smoothed: 55}
	if seats, _ = Allocate([]Part{lender, borrower}); seats[0] != 50 || seats[1] != 50 {
		t.Errorf("given back: %v", seats)
	}
	exempt := Part{Exempt: true, Demand: Demand{High: 60}}
	seats, _ = Allocate([]Part{lender, borrower, exempt})
	if seats[2] != 60 || seats[0] != 10 || seats[1] != 50 {
		t.Errorf("what exempt requests use the others cannot have beyond what they lend: %v", seats)
	}
}

// TestAllocate: the seats are all given out and nobody gets less or more than its limits, whatever is wanted.
func TestAllocate(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		parts := make([]Part, 2+rnd.IntN(8))
		total := 0
		for i := range parts {
			n := 1 + rnd.IntN(100)
			parts[i] = Part{Limit: Limit{Nominal: n, Min: rnd.IntN(n + 1), Max: n + 600}, Demand: Demand{High: float64(rnd.IntN(300)), Smoothed: rnd.Float64() * 300}}
			total += n
		}
		seats, _ := Allocate(parts)
		sum := 0
		for i, p := range parts {
			sum += seats[i]
			if low, _ := p.bounds(); seats[i] < int(low) || seats[i] > p.Max {
				t.Fatalf("%+v gets %d", p, seats[i])
			}
		}
		if math.Abs(float64(sum-total)) > float64(len(parts)) { // rounding
			t.Fatalf("%d of %d seats are given out: %v for %+v", sum, total, seats, parts)
		}
	}
}

// TestDemand: what is wanted is averaged over time, and remembered for minutes.
func TestDemand(t *testing.T) {
	l := NewLevel(Config{}, 10, 0)
	r := &Request{Seats: 4}
	l.Arrive(r, 0, 5*time.Second)
	d := l.Demand(Demand{}, 10*time.Second)
	if d.High != 4 || d.Average != 2 || math.Abs(d.Deviation-2) > 1e-9 || math.Abs(d.Smoothed-4) > 1e-9 {
		t.Errorf("demand %+v", d)
	}
	l.Finish(r, 10*time.Second)
	l.Demand(d, 10*time.Second)
	d = l.Demand(d, 310*time.Second)
	if d.High > 0 || d.Average != 0 || d.Smoothed < 1.9 || d.Smoothed > 2.1 {
		t.Errorf("five minutes later %+v", d)
	}
}
