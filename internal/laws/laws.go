// Package laws holds the project's laws as tests: the order in which rooms may import each other, a comment on every package, no
// init functions, planners without clocks and I/O.
//
// What flows through it: the source tree, read as text. What must stay true: a law that is broken names the file, the line and
// what to do instead. Each Test here is one law (TestImportsPointDown is the first to read).
package laws
