package history

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// parse reads a history as people would write it down. Times are milliseconds.
//
//	w1 0-10 create k a @5              done at revision 5
//	w1 0-10 create k a AlreadyExists   refused; also "unknown"
//	w1 0-10 update k a@5 b @6          from a to b
//	w1 0-10 delete k b@6 done
//	r1 0-10 read k b@6                 or "nothing"
//	r1 0-10 list @6 k=b@6 ...
//	f1 0-10 follow @6 k=b@6 ...        the list that a follower begins with
//	f1 10 from 6                       a connection begins
//	f1 11 ADDED k a 7                  also MODIFIED, DELETED; BOOKMARK 9
func parse(t *testing.T, text string) *History {
	t.Helper()
	h := &History{}
	followers := map[string]*Follower{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		call, ret, _ := strings.Cut(f[1], "-")
		o := &Op{Client: f[0], Server: "s", Call: ms(t, call), Return: ms(t, call)}
		if ret != "" {
			o.Return = ms(t, ret)
		}
		if followers[f[0]] == nil && strings.HasPrefix(f[0], "f") {
			followers[f[0]] = &Follower{Name: f[0]}
			h.Followers = append(h.Followers, followers[f[0]])
		}
		follower, e := followers[f[0]], Event{At: o.Return, Server: "s"}
		switch kind, args := f[2], f[3:]; kind {
		case "create":
			o.Kind, o.Key, o.Value = Create, args[0], args[1]
			o.outcome(args[2])
		case "update":
			o.Kind, o.Key, o.Expect, o.Value = Update, args[0], version(args[1]), args[2]
			o.outcome(args[3])
		case "delete":
			o.Kind, o.Key, o.Expect = Delete, args[0], version(args[1])
			o.outcome(args[2])
		case "read":
			o.Kind, o.Key, o.Found = Read, args[0], version(args[1])
		case "list", "follow":
			o.Kind, o.Rev, o.Items = List, parseRev(args[0][1:]), map[string]Version{}
			for _, item := range args[1:] {
				key, v, _ := strings.Cut(item, "=")
				o.Items[key] = version(v)
			}
			if kind == "follow" {
				e.Type, e.Rev, e.List = Replaced, o.Rev, o
				follower.Events = append(follower.Events, e)
			}
		case "from":
			e.Type, e.Rev = Connected, parseRev(args[0])
		case "BOOKMARK":
			e.Type, e.Rev = Bookmark, parseRev(args[0])
		case "ADDED", "MODIFIED", "DELETED":
			e.Type = map[string]EventType{"ADDED": Added, "MODIFIED": Modified, "DELETED": Deleted}[kind]
			e.Key, e.Value, e.Rev = args[0], args[1], parseRev(args[2])
		default:
			t.Fatalf("%q is no line of a history", line)
		}
		if o.Key != "" || o.Kind == List && o.Items != nil {
			h.Ops = append(h.Ops, o)
		} else {
			follower.Events = append(follower.Events, e)
		}
	}
	return h
}

func (o *Op) outcome(word string) {
	switch {
	case word == "unknown":
		o.Outcome = Unknown
	case word == "done":
	case strings.HasPrefix(word, "@"):
		o.Found = Version{o.Value, parseRev(word[1:])}
	default:
		o.Outcome, o.Reason = Refused, word
	}
}

func version(s string) Version {
	value, rev, ok := strings.Cut(s, "@")
	if !ok {
		return Version{}
	}
	return Version{value, parseRev(rev)}
}

func ms(t *testing.T, s string) time.Duration {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n) * time.Millisecond
}

func TestHistoriesThatHold(t *testing.T) {
	for _, c := range []struct{ name, history string }{
		{"one after the other", `
			w1 0-10 create k a @5
			r1 11-20 read k a@5
			w1 21-30 update k a@5 b @6
			w1 31-40 update k a@5 c Conflict
			w1 41-50 delete k b@6 done
			w1 51-60 update k b@6 d NotFound
			r1 51-60 read k nothing
			w1 61-70 create k e @8
			w2 71-80 create k f AlreadyExists
			r1 81-90 list @8 k=e@8`},
		{"at the same time, in either order", `
			w1 0-10 create k a @5
			r1 5-8 read k nothing
			r2 5-8 read k a@5
			w2 20-40 update k a@5 b @6
			w3 20-40 update k a@5 c Conflict
			r1 25-30 read k a@5
			r2 25-30 list @6 k=b@6`},
		{"an unknown write that happened much later", `
			w1 0-10 create k a @5
			w1 20-30 update k a@5 b unknown
			r1 40-50 read k a@5
			r1 60-70 read k b@6
			w2 80-90 delete k b@6 unknown
			r1 91-95 read k b@6
			r1 100-110 read k nothing`},
		{"an unknown write that never happened", `
			w1 0-10 create k a @5
			w1 20-30 update k a@5 b unknown
			w1 40-50 update k a@5 c @6
			r1 60-70 read k c@6`},
		{"two writes that share a revision", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			w2 3-10 create l b @5
			f1 8 ADDED k a 5
			f1 12 from 5
			f1 13 ADDED k a 5
			f1 13 ADDED l b 5
			f1 20 BOOKMARK 6`},
		{"a follower that has to list anew missed a deletion", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			w1 11-12 create l x @6
			f1 13 ADDED k a 5
			w2 20-30 delete k a@5 done
			f1 40-41 follow @9 l=x@6
			f1 42 from 9
			r1 50-60 list @9 l=x@6`},
		{"deleted and created anew while nobody followed", `
			w1 0-10 create k a @5
			w1 20-30 delete k a@5 unknown
			w2 40-50 create k b @9
			r1 60-70 read k b@9`},
		{"a watch that resumes from a bookmark", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			f1 8 ADDED k a 5
			f1 9 BOOKMARK 7
			f1 12 from 7
			w1 13-14 delete k a@5 done
			f1 15 DELETED k a 8
			f1 16 BOOKMARK 8`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Check(parse(t, c.history)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHistoriesThatDoNotHold(t *testing.T) {
	for _, c := range []struct{ name, history, want string }{
		{"stale read", `
			w1 0-10 create k a @5
			w1 20-30 update k a@5 b @6
			r1 40-50 read k a@5`, "a read found what was no longer, or not yet, there"},
		{"stale read, by the clients alone", `
			w1 0-10 create k a @5
			w1 20-30 update k a@5 b @6
			r1 40-50 read k a@5`, "key k is not linearizable"},
		{"read of what is not written yet", `
			w1 0-10 create k a @5
			r1 11-12 read k b@6
			w1 20-30 update k a@5 b @6`, "not linearizable"},
		{"read that goes back", `
			w1 0-100 create k a @5
			r1 10-20 read k a@5
			r2 30-40 read k nothing`, "a read found what was no longer, or not yet, there"},
		{"stale across keys", `
			w1 0-10 create k a @5
			w1 20-30 create l b @6
			w2 0-100 update k a@5 c @7
			r1 40-50 read k c@7
			r2 60-70 list @6 k=a@5 l=b@6`, "a list is not of its time"},
		{"list that mixes revisions", `
			w1 0-10 create k a @5
			w1 20-30 create l b @6
			w1 31-40 update k a@5 c @7
			r1 41-50 list @7 k=a@5 l=b@6`, "a list at revision 7 has k as a@5"},
		{"list that misses an object", `
			w1 0-10 create k a @5
			r1 41-50 list @5`, "a list at revision 5 has k as nothing"},
		{"lost write", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			w1 11-12 create l b @6
			f1 13 ADDED l b 6
			f1 14 BOOKMARK 6
			r1 20-30 list @6 l=b@6`, "an acknowledged write was lost"},
		{"lost write, nobody follows", `
			w1 3-10 create k a @5
			r1 20-30 read k nothing`, "not linearizable"},
		{"lost deletion", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			f1 9 ADDED k a 5
			w1 11-12 delete k a@5 done
			w1 13-14 create l b @7
			f1 15 ADDED l b 7
			r1 20-30 list @7 k=a@5 l=b@7`, "no deletion of a@5 among the changes"},
		{"lost update", `
			w1 0-10 create k a @5
			w1 20-30 update k a@5 b @6
			w2 40-50 update k a@5 c @7`, "which is not what it was made from"},
		{"lost update, by the clients alone", `
			w1 0-10 create k a @5
			w1 20-30 update k a@5 b @6
			w2 40-50 update k a@5 c @7`, "not linearizable"},
		{"created twice", `
			w1 0-10 create k a @5
			w2 20-30 create k b @6`, "created anew as b@6 though nobody had deleted a@5"},
		{"refused, and yet done", `
			w1 0-10 create k a @5
			w1 20-30 update k a@5 b Conflict
			r1 40-50 read k b@6`, "a write that was not done took effect"},
		{"refused without a reason", `
			w1 0-10 create k a @5
			w1 20-30 update k a@5 b Conflict
			r1 40-50 read k a@5`, "refused without a reason"},
		{"not found though it is there", `
			w1 0-10 create k a @5
			w2 20-30 update k a@5 b NotFound`, "refused without a reason"},
		{"answer that should not be", `
			w1 0-10 create k a Forbidden`, "an answer that should not be"},
		{"done before it was asked for", `
			w1 0-10 create k a @7
			w1 20-30 create l b @6`, "outside of its time"},
		{"two values at one revision", `
			w1 0-10 create k a @5
			w2 0-10 create k b unknown
			r1 0-10 read k b@5`, "was both"},
		{"value from nowhere", `
			r1 0-10 read k b@5`, "which nobody wrote"},
		{"value with two revisions", `
			w1 0-10 create k a @5
			r1 20-30 read k a@6`, "has two revisions"},
		{"deletion that nobody asked for", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			f1 9 ADDED k a 5
			f1 20 DELETED k a 6`, "nobody asked for that"},
		{"follower misses a change", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			w1 11-12 create l b @6
			r1 11-12 read k a@5
			f1 13 ADDED l b 6
			f1 14 BOOKMARK 6`, "was not told of k = a@5"},
		{"one follower of two misses a deletion", `
			f1 0-1 follow @4
			f1 2 from 4
			f2 0-1 follow @4
			f2 2 from 4
			w1 3-10 create k a @5
			f1 9 ADDED k a 5
			f2 9 ADDED k a 5
			w1 11-12 delete k a@5 done
			f1 15 DELETED k a 6
			f1 16 BOOKMARK 6
			f2 16 BOOKMARK 6`, "was not told of k = nothing since @6"},
		{"bookmark ahead of what was told", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			f1 9 BOOKMARK 5
			f1 12 from 5
			r1 20-30 read k a@5`, "was not told of k = a@5"},
		{"events out of order", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			w2 3-10 create l b @6
			f1 9 ADDED l b 6
			f1 9 ADDED k a 5`, "was told of revision 5 after 6"},
		{"event told twice", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			f1 8 ADDED k a 5
			f1 9 ADDED k a 5`, "was told twice"},
		{"older events after a resumption", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			w1 11-12 update k a@5 b @6
			f1 8 ADDED k a 5
			f1 13 MODIFIED k b 6
			f1 20 from 6
			f1 21 ADDED k a 5`, "was told of revision 5 after 6"},
		{"event that does not fit", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			f1 8 MODIFIED k a 5`, "does not fit nothing"},
		{"stale list when following begins anew", `
			f1 0-1 follow @4
			f1 2 from 4
			w1 3-10 create k a @5
			f1 8 ADDED k a 5
			f1 20-30 follow @4`, "a list is not of its time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Check(parse(t, c.history))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want a failure with %q, got: %v", c.want, err)
			}
		})
	}
}

func TestManyFailuresAreSummedUp(t *testing.T) {
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "w1 %d-%d create k%d v%d Forbidden\n", 2*i, 2*i+1, i, i)
	}
	err := Check(parse(t, b.String()))
	if err == nil || !strings.Contains(err.Error(), "and 28 more") {
		t.Errorf("got %v", err)
	}
}

func TestReport(t *testing.T) {
	h := parse(t, `
		w1 0-10 create k a @5
		w1 20-30 update k a@5 b unknown
		w2 1990-2010 create m x @6
		w1 1995-2030 update k b@6 c @7
		w1 2040-2041 update k b@6 d Conflict
		f1 0-1 follow @4
		f1 2 from 4
		f1 8 ADDED k a 5`)
	h.Ops[1].Reason = `Put "https://10.0.0.1:6443/api/v1/namespaces/x/configmaps/k": read tcp 10.0.0.1:33->10.0.0.2:6443: connection reset by peer`
	h.Marks = []Mark{{Name: "kill -9 of s", At: 15 * time.Millisecond, From: 1993 * time.Millisecond}}
	got := Report(h)
	for _, want := range []string{
		"create      2 done,     0 refused,    0 not sent,    0 unknown",
		"update      1 done,     1 refused,    0 not sent,    1 unknown",
		"writes acknowledged by s: 3",
		"f1: 1 events over 1 connections, 1 lists",
		"longest time without an acknowledged write: 2s, from 10ms on",
		"15ms kill -9 of s: the next write acknowledged after 2.015s",
		"1 times s: read tcp … connection reset by peer",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
}
