// Package node is the agent of one node: it makes the pods that the API assigns to the node run, and reports to the API how they are.
//
// What flows through it: the agent follows the node's pods in the API and the runtime's events and hands both to the pods (package pod: a
// worker for each), whose statuses package report writes. The rooms below know nothing of the agent; it only wires them up.
//
//	            node
//	   _________/ |  \________________
//	  |           |          |        |
//	endpoint   upkeep      report     |
//	  |  \______/ |  \_______|        |
//	  |  diskuse  |          |        |
//	   \___|______|__________|__ pod _/
//	                              |
//	        ledger   images   sources   events   machine   task
//
// What must stay true: there is no loop that lists pods or containers again and again - one list at the start and after a lost stream;
// the agent may be killed at any time and finds everything again in the runtime (labels) and on its disk (directories named by pod UID):
// TestTakeoverKeepsContainers; containers keep running while the API (TestStatusIsWrittenWhenTheAPIIsBack) or the runtime
// (TestRuntimeAwayRestartsNothing) is away.
package node
