"""The command line client: talks to a running cloud by its REST API.

client  the door: URL, token, errors as one line     output  tables, JSON, CSV
lb      fakecloud lb list|get|watch|delete           cost    fakecloud cost report
fault   fakecloud fault list|add|remove|reset|log|scenario
"""
