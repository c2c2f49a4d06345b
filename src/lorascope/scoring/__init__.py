"""How good a trial is: items, scores, and the merged model that is shipped."""
