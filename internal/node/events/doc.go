// Package events records what happens to pods and their node as v1 Events.
//
// What flows through it: rooms of the agent say what happened; events that repeat are counted, and one goroutine, while there is
// something to write, hands many at once to the API. What must stay true: an object that fails every second does not fill the store
// (TestEventsAreCountedAndLimited), and an API that is away costs old events, never the agent's memory
// (TestOldEventsAreDroppedWhileTheAPIIsAway).
package events
