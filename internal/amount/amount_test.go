package amount

import (
	"math"
	"math/big"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"
)

func TestOf(t *testing.T) {
	const most = math.MaxInt64
	for _, tc := range []struct {
		quantity  string
		cpu, rest int64
	}{
		{"0", 0, 0},
		{"1", 1000, 1},
		{"1500m", 1500, 2},
		{"1u", 1, 1},
		{"64Gi", 64 << 30 * 1000, 64 << 30},
		{"10P", most, 10_000_000_000_000_000},
		{"9223372036854775", 9223372036854775000, 9223372036854775},
		{"9223372036854775807", most, most},
		{"12E", most, most},
		{"8Ei", most, most},
		{"100E", most, most},
		{"1e30", most, most},
		{"-1500m", -1500, -2},
		{"-12E", math.MinInt64, math.MinInt64},
	} {
		q := resource.MustParse(tc.quantity)
		if got := Of(corev1.ResourceCPU, q); got != tc.cpu {
			t.Errorf("%s of cpu is %d, want %d", tc.quantity, got, tc.cpu)
		}
		if got := Of(corev1.ResourceMemory, q); got != tc.rest {
			t.Errorf("%s of memory is %d, want %d", tc.quantity, got, tc.rest)
		}
	}
	sum := resource.MustParse("12E")
	sum.Add(resource.MustParse("12E")) // does not fit into 64 bits by far, and Value wraps
	if Units(sum) != most || Milli(sum) != most {
		t.Errorf("twice 12E is %d, %d", Units(sum), Milli(sum))
	}
}

func drawQuantity(t *rapid.T, label string) resource.Quantity {
	n := rapid.Int64().Draw(t, label)
	scale := rapid.SampledFrom([]resource.Scale{resource.Nano, resource.Micro, resource.Milli, 0, resource.Kilo, resource.Peta, resource.Exa}).Draw(t, label+" scale")
	q := resource.NewScaledQuantity(n, scale)
	if rapid.Bool().Draw(t, label+" doubled") {
		q.Add(*q)
	}
	return *q
}

func TestLargerQuantitiesAreNeverSmallerNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawQuantity(t, "a"), drawQuantity(t, "b")
		if a.Cmp(b) > 0 {
			a, b = b, a
		}
		if Units(a) > Units(b) || Milli(a) > Milli(b) {
			t.Fatalf("%s is %d and %d milli, %s is %d and %d milli", a.String(), Units(a), Milli(a), b.String(), Units(b), Milli(b))
		}
	})
}

func drawAmount(t *rapid.T, label string) int64 {
	return rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MaxInt64, math.MinInt64, 0, -1, 1})).Draw(t, label)
}

func nearest(n *big.Int) int64 {
	switch {
	case n.IsInt64():
		return n.Int64()
	case n.Sign() < 0:
		return math.MinInt64
	}
	return math.MaxInt64
}

func TestASumComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s, other Sum
		exact := new(big.Int)
		var added []int64
		for range rapid.IntRange(0, 30).Draw(t, "amounts") {
			n := drawAmount(t, "n")
			if rapid.Bool().Draw(t, "as a sum") {
				other = Sum{}
				other.Add(n)
				s.AddSum(other)
			} else {
				s.Add(n)
			}
			added = append(added, n)
			exact.Add(exact, big.NewInt(n))
		}
		if got, want := s.Int64(), nearest(exact); got != want {
			t.Fatalf("the sum is %d, want %d", got, want)
		}
		capacity := drawAmount(t, "capacity")
		if got, want := s.Left(capacity), nearest(new(big.Int).Sub(big.NewInt(capacity), exact)); got != want {
			t.Fatalf("%d is left of %d, want %d", got, capacity, want)
		}
		for _, n := range added {
			s.Sub(n)
		}
		if s != (Sum{}) {
			t.Fatalf("%+v is left after everything was taken out", s)
		}
	})
}

func TestAddAndScaleStopAtTheLargest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawAmount(t, "a"), drawAmount(t, "b")
		if got, want := Add(a, b), nearest(new(big.Int).Add(big.NewInt(a), big.NewInt(b))); got != want {
			t.Fatalf("%d + %d is %d, want %d", a, b, got, want)
		}
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "n")
		by := rapid.Int64Range(0, math.MaxInt64).Draw(t, "by")
		per := rapid.Int64Range(1, math.MaxInt64).Draw(t, "per")
		want := new(big.Int).Mul(big.NewInt(n), big.NewInt(by))
		if got := Scale(n, by, per); got != nearest(want.Div(want, big.NewInt(per))) {
			t.Fatalf("%d * %d / %d is %d", n, by, per, got)
		}
	})
}

// Fields of seconds are int64, and "for ever" is often the largest of them.
func TestSecondsNeverWrap(t *testing.T) {
	for n, want := range map[int64]time.Duration{
		0: 0, 90: 90 * time.Second, -3: -3 * time.Second,
		99_999_999_999: longest, math.MaxInt64: longest, math.MinInt64: -longest,
	} {
		if got := Seconds(n); got != want {
			t.Errorf("%d seconds are %v, want %v", n, got, want)
		}
	}
	if now := time.Now(); !now.Add(Seconds(math.MaxInt64)).After(now.AddDate(100, 0, 0)) {
		t.Error("for ever is less than a hundred years")
	}
}
