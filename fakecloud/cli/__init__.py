"""The command line client: talks to a running cloud by its REST API.

client  the door: URL, token, errors as one line     output  tables, JSON, CSV
manifests  of Kubernetes, in files
lb      fakecloud lb list|get|watch|apply|delete     cost    fakecloud cost report|top|diff|…
op      fakecloud op list|get|wait|cancel            watch   fakecloud watch
admin   fakecloud admin check|export                 progress  waiting for an operation
cert    fakecloud cert put|list|get|delete
networks  fakecloud network, route list|put|delete
token   fakecloud token list|create|revoke           project   fakecloud project list|create|delete
clock   fakecloud clock show|set|advance
prices  fakecloud prices list|show|check             focus     fakecloud focus verify
budget  fakecloud budget put|list|get|delete         webhook   fakecloud webhook put|list|get|delete
fault   fakecloud fault list|add|remove|reset|log|scenario
"""
