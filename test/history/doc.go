// Package history finds out whether a cluster tells the truth while parts of it fail. Concurrent clients write, read, list and watch
// ConfigMaps through plain HTTP, at several servers, going to the next where one fails; everything that they did and were told is
// written down and checked afterwards.
//
// What flows through it: [Load] runs the clients against [Server]s and fills a [Recorder], whose [History] is judged by [Check] and
// told in words by [Report]. Each write carries a value of its own, so that whoever reads it knows which write it was.
//
// What is checked:
//   - each key alone is linearizable (porcupine; a write whose outcome is unknown may happen at any later time, or never);
//   - all keys together: every answer fits the order of etcd's revisions between the newest revision that anybody knew when the
//     request was made and the oldest of the writes that were begun after the answer (order.go);
//   - no write that was acknowledged is lost, none that was refused took effect, no update overwrote what its writer had not seen;
//   - whoever watches sees every change once and in order, across connections and servers; at the one revision from which a
//     connection resumes a change may come again (docs/adr/0005).
//
// What must stay true: a check never relies on how Knarr works inside, and each can fail - the tests of this package show every
// one of them a server that lies.
package history
