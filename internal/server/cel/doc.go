// Package cel evaluates the CEL expressions of admission policies and webhooks.
//
// What flows through it: a write becomes a [View], what expressions see of it; compiled [Conditions] say whether a webhook or a policy is meant,
// and the expressions of a [Validating] or [Mutating] policy say what it thinks of the write. [Programs] holds what is compiled, by content: it
// is compiled when it is first evaluated, by whoever needs it first. What must stay true: nothing here changes an object; each evaluation has a
// cost limit, each policy and each list of conditions a budget for one write (TestBudgets); two policies that say the same have one
// program (TestProgramsAreShared).
package cel
