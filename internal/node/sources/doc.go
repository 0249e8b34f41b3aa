// Package sources reads what pods are made from: ConfigMaps, Secrets, Services, trust bundles, service-account tokens and
// certificates.
//
// What flows through it: a pod's worker says which pod it is ([Sources.Use]); each object that the pod's volumes show is watched by its
// name, which is all that the Node authorizer lets a node do, and only while a pod of this node needs it; changes wake the pods that use
// it. What must stay true: pods that use the same object share one watch, which ends with the last of them
// (TestAWatchEndsWithTheLastPodThatNeedsIt); a token is renewed at 80 % of its life, and asked for once until then
// (TestTokensAreKeptUntilTheyAreRenewed); the key of a certificate never leaves the node, and a pod that has a certificate keeps it until
// the next one is issued (TestACertificateIsAskedForAndRefreshed).
package sources
