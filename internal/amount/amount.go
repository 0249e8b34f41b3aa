// Package amount counts resources in whole numbers that never wrap: what a pod asks for, what a node has, and sums of them.
//
// What flows through it: a resource.Quantity becomes an int64 by [Of], [Units] or [Milli], and many of them become a [Sum].
// The scheduler, the node agent and whoever else compares requests with capacity use the same numbers, so that one does not
// accept what the other refuses.
//
// Why not Quantity.Value: a Quantity may be larger than an int64 holds ("12E" of memory, "10P" of cpu are valid requests), and
// Value and MilliValue then return 0 or anything else. Quantities themselves add and compare exactly, but a hundred times
// slower than integers.
//
// What must stay true: a larger quantity is never a smaller number (TestLargerQuantitiesAreNeverSmallerNumbers), and what was
// added to a Sum can be taken out again, whatever went through it meanwhile (TestASumComesBack). That is why a Sum has 128
// bits: one that stopped at the largest int64 would lose what it held before.
package amount

import (
	"math"
	"math/bits"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Of returns how much of the named resource q is, rounded away from 0: thousandths of a cpu, whole units (bytes, devices) of everything
// else.
func Of(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return Milli(q)
	}
	return Units(q)
}

// Units returns q rounded away from 0 to a whole number; the nearest int64 if q is beyond all of them.
func Units(q resource.Quantity) int64 {
	if n, whole := q.AsInt64(); whole {
		return n
	}
	switch {
	case q.CmpInt64(math.MaxInt64) >= 0:
		return math.MaxInt64
	case q.CmpInt64(math.MinInt64) <= 0:
		return math.MinInt64
	}
	return signed(q, (*resource.Quantity).Value)
}

// Milli returns q in thousandths, rounded away from 0; the nearest int64 if that is beyond all of them.
func Milli(q resource.Quantity) int64 {
	switch {
	case q.CmpInt64(math.MaxInt64/1000) > 0:
		return math.MaxInt64
	case q.CmpInt64(math.MinInt64/1000) < 0:
		return math.MinInt64
	}
	return signed(q, (*resource.Quantity).MilliValue)
}

// signed is what of returns of q without its sign, with that sign: Quantity.Value of -1m is 1 (apimachinery v0.37.2).
func signed(q resource.Quantity, of func(*resource.Quantity) int64) int64 {
	if q.Sign() >= 0 {
		return of(&q)
	}
	without := q.DeepCopy() // a quantity may share what is changed
	d := without.AsDec()    // Quantity.Neg of the smallest int64 is itself
	return -of(resource.NewDecimalQuantity(*d.Neg(d), q.Format))
}

// Add returns a + b, or the nearest int64.
func Add(a, b int64) int64 {
	sum := a + b
	if a > 0 && b > 0 && sum < 0 {
		return math.MaxInt64
	}
	if a < 0 && b < 0 && sum >= 0 {
		return math.MinInt64
	}
	return sum
}

// longest is what Seconds stops at: 146 years, to which a time or a little more can be added without wrapping.
const longest time.Duration = 1 << 62

// Seconds returns n seconds, or the nearest of the longest durations: an API field of seconds may hold any int64 ("for ever"), of which a
// time.Duration holds few.
func Seconds(n int64) time.Duration {
	const most = int64(longest / time.Second)
	switch {
	case n > most:
		return longest
	case n < -most:
		return -longest
	}
	return time.Duration(n) * time.Second
}

// Scale returns n * by / per rounded down, or the nearest int64. None of them is negative, per is not 0.
func Scale(n, by, per int64) int64 {
	high, low := bits.Mul64(uint64(n), uint64(by))
	if high == 0 { // as good as always, and much faster
		return int64(min(low/uint64(per), math.MaxInt64))
	}
	if high >= uint64(per) {
		return math.MaxInt64
	}
	quotient, _ := bits.Div64(high, low, uint64(per))
	return int64(min(quotient, math.MaxInt64))
}

// Sum is a sum of amounts. The zero value is 0.
type Sum struct {
	high int64
	low  uint64
}

// Add adds n, which may be negative.
func (s *Sum) Add(n int64) {
	var carry uint64
	s.low, carry = bits.Add64(s.low, uint64(n), 0)
	s.high += n>>63 + int64(carry)
}

// Sub takes n out.
func (s *Sum) Sub(n int64) {
	var borrow uint64
	s.low, borrow = bits.Sub64(s.low, uint64(n), 0)
	s.high -= n>>63 + int64(borrow)
}

// AddSum adds another sum.
func (s *Sum) AddSum(o Sum) {
	var carry uint64
	s.low, carry = bits.Add64(s.low, o.low, 0)
	s.high += o.high + int64(carry)
}

// SubSum takes another sum out.
func (s *Sum) SubSum(o Sum) {
	var borrow uint64
	s.low, borrow = bits.Sub64(s.low, o.low, 0)
	s.high -= o.high + int64(borrow)
}

// Int64 returns the sum, or the nearest int64.
func (s Sum) Int64() int64 {
	if s.high == int64(s.low)>>63 {
		return int64(s.low)
	}
	if s.high < 0 {
		return math.MinInt64
	}
	return math.MaxInt64
}

// Left returns what the sum leaves of capacity; negative if it is more than that.
func (s Sum) Left(capacity int64) int64 {
	left := Sum{capacity >> 63, uint64(capacity)}
	left.SubSum(s)
	return left.Int64()
}
