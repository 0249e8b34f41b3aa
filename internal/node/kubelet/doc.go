// Package kubelet is the port at which tools expect a kubelet, 10250 elsewhere: metrics-server, Prometheus' node role and monitoring agents
// ask it for figures. It is off by default, as nothing of Knarr needs it: agents dial out.
//
// What flows through it: a request over HTTPS bears a client certificate of the cluster or a bearer token; the API server says whose token that
// is and whether its user may ask (https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/); the node's endpoint
// answers. What must stay true: nobody is answered without credentials; a path asks for the right that a kubelet asks for, and one that it
// does not know for nodes/proxy; what the API server said is forgotten within minutes. Tests: TestWhoIsAnswered, TestRightOfAPath,
// TestAnswersAreForgotten.
package kubelet
