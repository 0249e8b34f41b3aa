package history

import (
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// linearTime bounds the check of all keys together; they are made to take milliseconds.
const linearTime = 2 * time.Minute

// register is one key: its state is the value it holds, "" for none.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(s, in, _ any) (bool, any) { return in.(*Op).step(s.(string)) },
	DescribeOperation: func(in, _ any) string {
		return in.(*Op).String()
	},
}

// step reports whether the operation can have had its outcome on a key that held a value, and what the key holds then. What is unknown
// can always have been: done where that was possible, otherwise not.
func (o *Op) step(held string) (bool, string) {
	able := held == o.Expect.Value // of a Create nothing
	after := o.Value               // of a Delete nothing
	switch {
	case o.Kind == Read:
		return held == o.Found.Value, held
	case o.Outcome == Done:
		return able, after
	case o.Outcome == Unknown && able:
		return true, after
	case o.Outcome == Unknown:
		return true, held
	}
	switch o.Reason {
	case NotFound:
		return held == "", held
	default: // Conflict, AlreadyExists
		return held != "" && held != o.Expect.Value, held
	}
}

// checkLinear checks each key on its own, by what its clients were told and nothing else; only of writes with unknown outcome it
// helps to know that somebody saw them, or nobody did.
func (t *truth) checkLinear() {
	first := map[string]time.Duration{} // when a value was seen first
	saw := func(value string, at time.Duration) {
		if old, ok := first[value]; value != "" && (!ok || at < old) {
			first[value] = at
		}
	}
	byKey := map[string][]*Op{}
	for _, o := range t.h.Ops {
		if o.Outcome == Done {
			saw(o.Found.Value, o.Return)
			for _, v := range o.Items {
				saw(v.Value, o.Return)
			}
		}
		if o.Kind != List {
			byKey[o.Key] = append(byKey[o.Key], o)
		}
	}
	for _, f := range t.h.Followers {
		for _, e := range f.Events {
			saw(e.Value, e.At)
		}
	}
	deadline := time.Now().Add(linearTime)
	for key, ops := range byKey {
		h := make([]porcupine.Operation, 0, len(ops))
		for i, o := range ops {
			if op, ok := operation(o, i, first); ok {
				h = append(h, op)
			}
		}
		switch porcupine.CheckOperationsTimeout(register, h, max(time.Until(deadline), time.Second)) {
		case porcupine.Illegal:
			t.fail("key %s is not linearizable; its operations:\n    %s", key, lines(ops))
		case porcupine.Unknown:
			t.fail("whether key %s is linearizable could not be decided in time; its operations:\n    %s", key, lines(ops))
		}
	}
}

// operation is an operation for porcupine, or false if it had no effect and saw nothing.
func operation(o *Op, i int, first map[string]time.Duration) (porcupine.Operation, bool) {
	p := porcupine.Operation{ClientId: i, Input: o, Call: int64(o.Call), Return: int64(o.Return)}
	switch o.Outcome {
	case NotSent:
		return p, false
	case Refused:
		return p, o.Reason == AlreadyExists || o.Reason == Conflict || o.Reason == NotFound // others say nothing about the key
	case Unknown:
		if o.Kind == Read {
			return p, false
		}
	}
	if o.Outcome == Unknown {
		p.Return = math.MaxInt64
		if o.Kind != Delete {
			at, seen := first[o.Value]
			if !seen {
				return p, false // whatever came after it would have needed to see it
			}
			done := *o
			done.Outcome = Done
			p.Input, p.Return = &done, max(int64(at), p.Call)
		}
	}
	return p, true
}

// lines are some operations in the order of their calls.
func lines(ops []*Op) string {
	ops = slices.Clone(ops)
	slices.SortFunc(ops, func(a, b *Op) int { return int(a.Call - b.Call) })
	var s string
	for i, o := range ops {
		if i > 0 {
			s += "\n    "
		}
		s += o.String()
	}
	return s
}
