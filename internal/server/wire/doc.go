// Package wire turns API objects into the bytes that clients exchange with the server, and back: JSON, YAML, Kubernetes'
// protobuf and CBOR.
//
// What flows through it: [Negotiate] reads an Accept header into an [Accepted]; [Encode] writes single objects; [Item]
// gives the bytes of one object that lists and watch events are assembled from ([WriteList], [AppendEvent]), so that an
// object's revision is serialised once per format however many clients read it; [Decoder] reads request bodies, strictly
// where asked to. What must stay true: objects are shared and are never changed here; bytes that came from a cache are
// copied to the client as they are and never appended to in place. Tests: TestListIsUpstreams, TestEvents.
package wire
